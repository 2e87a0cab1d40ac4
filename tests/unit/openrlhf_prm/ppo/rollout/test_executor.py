"""Step records and the executor around the host's, with a scripted executor and scorer in their place."""

import asyncio
import math
import sys
from dataclasses import dataclass, replace
from enum import Enum
from types import ModuleType, SimpleNamespace

import pytest

from openrlhf_prm.advantages.branch_values import Branches, VineOptions
from openrlhf_prm.advantages.spo import SPO
from openrlhf_prm.answers.own_response import own_response
from openrlhf_prm.ppo.rollout.records import StepRecord, hidden_share


class SingleTurn:
    """Stands for the host's single-turn executor: two tokens of prompt, five of response. Given several rewards, each
    response takes the next one.
    """

    def __init__(self, *rewards):
        self.rewards = list(rewards)
        self.reward_endpoints = ["reward.py"]
        self.judged = []
        self.answer = None

    async def execute(self, prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images=None):
        reward = self.rewards.pop(0) if len(self.rewards) > 1 else self.rewards[0]
        if self.answer is not None:
            await llm_engine.generate([7, 8], sampling_params, multi_modal_data=None)
            reward = [float(own_response("", "never read") == self.answer)]
        wanted = sampling_params is not None and sampling_params.logprobs is not None
        return {
            "observation_tokens": [7, 8, 1, 2, 1, 3, 0],
            "action_ranges": [(2, 7)],
            "reward": reward,
            "rollout_log_probs": [0.0, 0.0] + [math.log(p) for p in (0.9, 0.1, 0.9, 0.1, 0.9)] if wanted else None,
        }

    def reward_func(self):
        raise AssertionError("called by the host's method, not by ours")

    async def _fetch_rewards_via_func(self, queries, prompts, labels):
        self.judged += queries
        return [{"rewards": 1.0 if "b" in queries[0] else 0.0}]


class Writing:
    """Stands for the host's engine: writes one response."""

    async def generate(self, prompt_token_ids, sampling_params, multi_modal_data=None):
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=[1, 3])])


class Tokenizer:
    """Token 1 is a word, 2 a newline, 3 the end of a line, 0 the end of sequence, which decodes to nothing."""

    def decode(self, ids, **_):
        return "".join({1: "a", 2: "\n", 3: "b\n", 7: "Q", 8: ":", 0: ""}[i] for i in ids)


class Scorer:
    def __init__(self):
        self.asked = []

    async def score(self, question, steps):
        self.asked.append((question, steps))
        return [0.25] * len(steps)


@pytest.fixture
def executor_module(monkeypatch):
    # The host's module pulls in its whole stack; the executor needs two names of it.
    agent = ModuleType("openrlhf.utils.agent")
    agent.AgentExecutorBase, agent.SingleTurnAgentExecutor = object, SingleTurn
    for name in ("openrlhf", "openrlhf.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "openrlhf.utils.agent", agent)
    monkeypatch.delitem(sys.modules, "openrlhf_prm.ppo.rollout.executor", raising=False)
    import openrlhf_prm.ppo.rollout.executor as module

    yield module
    sys.modules.pop("openrlhf_prm.ppo.rollout.executor")


def execute(executor):
    return asyncio.run(executor.execute("<user>17+15</user>", "32", None, 10, Tokenizer(), None))


def test_a_response_comes_back_with_its_steps_and_scores(executor_module):
    scorer = Scorer()
    scoring = executor_module.StepScoring(scorer, "newline", "<user>(.*?)</user>")
    record = execute(executor_module.StepScoringExecutor(SingleTurn(1.0), scoring))["steps"]
    assert scorer.asked == [("17+15", ["a", "ab"])]
    assert record.ends == (2, 5) and record.scores == (0.25, 0.25) and record.repetition == 0.0


def test_the_prm_is_not_asked_about_what_shows_nothing(executor_module):
    scorer = Scorer()
    scoring = executor_module.StepScoring(scorer, "newline")
    record = asyncio.run(scoring.record("Q", [], [executor_module.Step("\u200b\n", 0, 2, 2)]))
    assert scorer.asked == [] and len(record.scores) == 1 and math.isnan(record.scores[0])
    assert record.known_scores == () and record.separators == [] and record.repetition == 0.0
    record = asyncio.run(
        scoring.record("Q", [], [executor_module.Step("a\n", 0, 2, 1), executor_module.Step("b", 2, 4, 3)])
    )
    assert record.known_scores == (0.25, 0.25) and record.separators == [1, 3]
    nothing = asyncio.run(scoring.record("Q", [], []))
    assert (nothing.ends, nothing.scores, nothing.tokens, nothing.separators) == ((), (), 0, [])


@pytest.mark.parametrize(("answer", "reward"), [("ab\n", 1.0), ("Q:ab\n", 0.0)])
def test_the_response_is_judged_by_its_own_tokens(executor_module, answer, reward):
    inner = SingleTurn(None)
    inner.answer = answer
    executor = executor_module.StepScoringExecutor(inner, None)
    output = asyncio.run(executor.execute("Q:", "32", None, 10, Tokenizer(), Writing()))
    assert output["reward"] == reward, "a list of one is a number from here on"


def test_a_reward_that_is_no_number_names_the_flag_and_the_prompt(executor_module):
    for reward in (math.nan, [1.0, 2.0]):
        with pytest.raises(ValueError, match="--reward.remote_url reward.py gave the reward .* for the prompt '<user>"):
            execute(executor_module.StepScoringExecutor(SingleTurn(reward), None))


def test_a_missing_reward_is_an_error_that_names_the_flag(executor_module):
    with pytest.raises(RuntimeError, match="--reward.remote_url .* gave no reward"):
        execute(executor_module.StepScoringExecutor(SingleTurn(None), None))


def test_a_pattern_that_does_not_occur_is_an_error(executor_module):
    with pytest.raises(ValueError, match="--prm.question_pattern"):
        executor_module.StepScoring(Scorer(), "newline", "<q>(.*?)</q>").question("no tag")


def test_scoring_errors_propagate(executor_module):
    class Broken:
        async def score(self, question, steps):
            raise RuntimeError("the PRM died")

    scoring = executor_module.StepScoring(Broken(), "newline")
    with pytest.raises(RuntimeError, match="the PRM died"):
        execute(executor_module.StepScoringExecutor(SingleTurn(1.0), scoring))


def test_records_align_and_are_cut_inside_a_step():
    with pytest.raises(ValueError, match="got 1, expected 2"):
        StepRecord((1, 2), (0.5,), 0.0, 0.0)
    with pytest.raises(ValueError, match="got 2, expected 1"):
        StepRecord((1, 2), (0.5, 0.5), 0.0, 0.0, branches=(Branches((1.0,)),) * 2)
    record = StepRecord((3, 5, 9), (0.1, 0.2, 0.3), 0.0, 0.0)
    assert record.cut(9) is record
    assert (record.cut(7).ends, record.cut(7).scores) == ((3, 5, 7), (0.1, 0.2, 0.3))
    assert (record.cut(5).ends, record.cut(5).scores) == ((3, 5), (0.1, 0.2))
    assert (record.cut(0).ends, record.cut(0).scores) == ((), ()), "no token, no step"


def test_what_belongs_to_steps_is_cut_with_them():
    states = (Branches((1.0,)), Branches((0.0,)))
    record = StepRecord(
        (1, 2, 4), None, 0.0, 0.0, branches=states, probabilities=(0.1, 0.2, 0.3, 0.4), text_ends=(1, 2, 3)
    )
    forked = replace(record, fork_ends=(1, 2))
    assert forked.cut(2).fork_ends == (1,) and forked.cut(1).fork_ends == () and forked.cut(4).fork_ends == (1, 2)
    assert record.cut(3).text_ends == (1, 2, 3) and record.cut(2).text_ends == (1, 2)
    assert (record.cut(0).branches, record.cut(0).probabilities) == ((), ())
    cut = record.cut(2)
    assert (cut.ends, cut.scores, cut.branches, cut.probabilities) == ((1, 2), None, states[:1], (0.1, 0.2))


class Kind(Enum):
    CUMULATIVE = 0
    FINAL_ONLY = 1


@dataclass
class Sampling:
    """The fields of vLLM's SamplingParams that are read and written."""

    max_tokens: int | None = 6
    min_tokens: int = 1
    logprobs: int | None = None
    n: int = 1
    output_kind: Kind = Kind.CUMULATIVE


class Engine:
    """Writes the scripted continuations one after another, [3, 0] where the script has ended."""

    def __init__(self, *script):
        self.script, self.asked = list(script), []

    async def generate(self, prompt_token_ids, sampling_params):
        self.asked.append((tuple(prompt_token_ids), sampling_params.n, sampling_params.max_tokens))
        assert sampling_params.output_kind is Kind.FINAL_ONLY and sampling_params.logprobs is None
        await asyncio.sleep(0)
        outputs = []
        for _ in range(sampling_params.n):
            tokens = self.script.pop(0) if self.script else [3, 0]
            finish = "length" if len(tokens) >= sampling_params.max_tokens else "stop"
            outputs.append(SimpleNamespace(token_ids=tokens, finish_reason=finish))
        return SimpleNamespace(outputs=outputs)


def group_of(module, executor, engine, size, sampling=None):
    """A question's responses as the rollout actor runs them: tasks of one call."""

    async def responses():
        module.QUESTION_OUTCOMES.set(module.QuestionOutcomes(size))
        tasks = [executor.execute("Q:", "32", sampling or Sampling(), 20, Tokenizer(), engine) for _ in range(size)]
        return await asyncio.gather(*tasks)

    return [output["steps"] for output in asyncio.run(responses())]


def branching(module, *rewards, **options):
    scoring = module.StepScoring(None, "newline", vine=VineOptions(**options))
    return module.StepScoringExecutor(SingleTurn(*rewards), scoring)


def test_states_between_steps_are_branched_from_and_judged(executor_module):
    executor = branching(executor_module, 1.0, 0.0, k=2)
    # The second continuation is as long as what was left of the response: it is judged as a cut response is.
    engine = Engine([3, 0], [1, 1, 1, 3])
    records = group_of(executor_module, executor, engine, 2)
    first, second = sorted(records, key=lambda record: not record.branches[0].fresh)
    assert engine.asked == [((7, 8, 1, 2), 2, 4)], "one state between two steps, met by both responses, sampled once"
    assert first.branches == (Branches((1.0, 1.0), tokens=6),)
    assert second.branches == (Branches((1.0, 1.0), tokens=6, fresh=False),)
    assert len(executor.inner.judged) == 2
    assert first.scores is None and first.ends == (2, 5)


def test_a_group_of_one_outcome_may_be_skipped(executor_module):
    engine = Engine()
    records = group_of(executor_module, branching(executor_module, 1.0, k=2, skip_uniform=True), engine, 3)
    assert engine.asked == [] and [record.branches for record in records] == [None] * 3
    records = group_of(executor_module, branching(executor_module, 1.0, k=2), engine, 3)
    assert len(engine.asked) == 1 and records[0].branches[0].outcomes == (1.0, 1.0)


def test_states_are_sampled_anew_after_a_weight_update(executor_module):
    executor, engine = branching(executor_module, 1.0, 0.0, 1.0, 0.0, k=2), Engine()
    group_of(executor_module, executor, engine, 2)
    executor.sampler.forget()
    group_of(executor_module, executor, engine, 2)
    assert len(engine.asked) == 2


def test_sampling_stops_when_the_interval_is_narrow(executor_module):
    engine = Engine()
    executor = branching(executor_module, 1.0, 0.0, k=9, k_min=4, half_width=0.25)
    record, _ = group_of(executor_module, executor, engine, 2)
    assert [n for _, n, _ in engine.asked] == [4] and record.branches[0].outcomes == (1.0,) * 4


def test_a_branch_has_no_more_tokens_than_its_response_had_or_the_flag_allows(executor_module):
    engine = Engine()
    group_of(executor_module, branching(executor_module, 1.0, 0.0, k=1, max_new_tokens=3), engine, 2)
    group_of(executor_module, branching(executor_module, 1.0, 0.0, k=1), engine, 2, Sampling(max_tokens=None))
    assert [limit for _, _, limit in engine.asked] == [3, 16]
    (record, _) = group_of(
        executor_module, branching(executor_module, 1.0, 0.0, k=2), engine, 2, Sampling(max_tokens=2)
    )
    assert record.branches[0].outcomes == (0.0, 0.0), "nothing was left"


def test_the_control_variate_scores_one_step_into_branches_and_probes(executor_module):
    class Lengths:
        async def score(self, question, steps):
            return [len(step) / 10 for step in steps]

    options = VineOptions(k=1, control_variate=True, probes=2, probe_tokens=2)
    scoring = executor_module.StepScoring(Lengths(), "newline", vine=options)
    # The probes are asked for first; the branch's first step is cut at the probes' limit, the last probe is empty.
    engine = Engine([1, 2], [0], [1, 1, 1, 0])
    executor = executor_module.StepScoringExecutor(SingleTurn(1.0, 0.0), scoring)
    record, _ = group_of(executor_module, executor, engine, 2, Sampling(max_tokens=15))
    by_size = {n: limit for _, n, limit in engine.asked}
    assert by_size == {1: 13, 2: 2}
    (state,) = record.branches
    assert sorted([*state.scores, *state.probes]) == [0.1, 0.1, 0.2]
    assert state.tokens == 7 and record.scores == (0.1, 0.2)


def test_segments_are_cut_at_low_probabilities_and_log_probs_do_not_reach_the_host(executor_module):
    scoring = executor_module.StepScoring(None, "newline", segment_ends=SPO(probability=0.5, cut_points=1).segment_ends)
    executor = executor_module.StepScoringExecutor(SingleTurn(1.0), scoring)
    output = asyncio.run(executor.execute("Q:", "32", Sampling(), 20, Tokenizer(), None))
    assert output["steps"].ends == (2, 4, 5)
    assert output["steps"].probabilities == pytest.approx((0.9, 0.1, 0.9, 0.1, 0.9))
    assert output["rollout_log_probs"] is None
    wanted = asyncio.run(executor.execute("Q:", "32", Sampling(logprobs=1), 20, Tokenizer(), None))
    assert len(wanted["rollout_log_probs"]) == 7


def test_nothing_is_looked_at_while_evaluating(executor_module):
    executor = branching(executor_module, 1.0)
    executor.looking = False
    assert "steps" not in execute(executor)


def test_an_evaluation_of_an_agent_counts_right_answers(executor_module):
    """The sum of what it pays for its turns is no accuracy."""

    class Agent(executor_module.AgentExecutorBase):
        async def execute(self, *args, **kwargs):
            return {"reward": 2.0, "scores": 0.0}

    for turn_rewards, counted in ((True, 0.0), (False, 2.0)):
        scoring = executor_module.StepScoring(None, None, turn_rewards=turn_rewards)
        executor = executor_module.StepScoringExecutor(Agent(), scoring)
        executor.looking = False
        assert execute(executor)["reward"] == counted
    assert execute(executor_module.StepScoringExecutor(Agent(), None))["reward"] == 2.0


def test_scoring_before_the_last_response_ends_is_hidden():
    def record(ended, scoring):
        return StepRecord((1,), (0.5,), 0.0, scoring, ended_s=ended)

    # Waits 0-2, 1-3 (1 second new), 4-6; the last response ends at 4: 3 of 5 seconds are hidden.
    assert hidden_share([record(0.0, 2.0), record(4.0, 2.0), record(1.0, 2.0)]) == pytest.approx(0.6)
    assert hidden_share([record(5.0, 1.0), record(5.0, 2.0)]) == 0.0
    assert hidden_share([record(5.0, 0.0)]) == 0.0
    assert math.isnan(hidden_share([StepRecord((1,), None, 0.0, 1.0)]))


class Asking(SingleTurn):
    """As the host's: what goes wrong with a reward is logged and forgotten."""

    def __init__(self, fetch):
        super().__init__(None)
        self.fetch = fetch

    async def execute(self, prompt, label, *rest, **more):
        try:
            await self._fetch_rewards_via_func(["q"], [prompt], [label])
        except Exception:
            pass
        return await super().execute(prompt, label, *rest, **more)

    async def _fetch_rewards_via_func(self, queries, prompts, labels):
        return await self.fetch()

    async def _fetch_rewards_via_http(self, queries, prompts, labels):
        raise AssertionError


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        (None, "RewardTimeout: no reward came for 0.05 s"),
        ([0.5], "it answered 0.5, expected a dict"),
        ([{"scores": 1.0}], "it answered {'scores': 1.0}, expected a dict"),
    ],
)
def test_a_reward_that_hangs_or_is_none_is_named(executor_module, answers, told):
    async def fetch():
        return await asyncio.sleep(999) if answers is None else answers

    executor = executor_module.StepScoringExecutor(Asking(fetch), None, reward_timeout_s=0.05)
    with pytest.raises(RuntimeError, match=f"--reward.remote_url reward.py gave no reward for .*17.15.*; .*{told}"):
        execute(executor)
