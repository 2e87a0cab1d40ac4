"""Episodes of several attempts with a scripted engine in the host's place: tokens, limits, verdicts."""

import asyncio
from types import SimpleNamespace

import pytest

from openrlhf_prm.data.attempts import AttemptOptions
from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.ppo.self_correction.executor import AttemptsExecutor
from openrlhf_prm.ppo.self_correction.offline import QUESTION_DRAW, OfflineAttempts, read_attempts

EOS = 0


class Characters:
    """One token a character; 0 ends a text and shows as $."""

    eos_token_id = EOS

    def __call__(self, text, add_special_tokens=False, **_):
        return {"input_ids": [ord(character) for character in text]}

    def decode(self, tokens, skip_special_tokens):
        return "".join("$" if token == EOS else chr(token) for token in tokens)


class Judge:
    """The host's single-turn executor as far as rewards go: the answer must stand in what is the policy's own."""

    reward_func = True
    reward_endpoints = ["judge.py"]

    def __init__(self):
        self.asked = []

    async def _fetch_rewards_via_func(self, queries, prompts, labels):
        from openrlhf_prm.answers.own_response import own_response

        response = own_response(queries[0], prompts[0])
        self.asked.append((queries[0], response))
        right = float(labels[0] in response)
        return [{"rewards": 2 * right, "scores": right, "extra_logs": {"accuracy": right}}]


class Engine:
    """Writes the texts of a script; a text that ends with ! was cut there, one with ? stopped at the line."""

    def __init__(self, *texts):
        self.texts, self.asked, self.least = list(texts), [], []

    async def generate(self, tokens, params, multi_modal_data=None):
        await asyncio.sleep(0)
        self.asked.append((Characters().decode(tokens, False), params.max_tokens, params.stop))
        self.least.append(params.min_tokens)
        text = self.texts.pop(0)
        ids = [ord(character) for character in text.rstrip("!?")] + ([] if text.endswith(("!", "?")) else [EOS])
        reason = "length" if text.endswith("!") else "stop"
        log_probs = [{token: SimpleNamespace(logprob=-float(token))} for token in ids]
        output = SimpleNamespace(
            token_ids=ids, finish_reason=reason, logprobs=log_probs, stop_reason="Hm." if text.endswith("?") else None
        )
        return SimpleNamespace(outputs=[output])


def episode(engine, *, prompt="Q:", max_length=100, judge=None, offline=None, **options):
    sampling = SimpleNamespace(max_tokens=20, min_tokens=1, logprobs=1, stop=None)
    executor = AttemptsExecutor(
        judge or Judge(), AttemptOptions(instruction="Hm.", **options), PromptOptions(), offline
    )
    run = executor.execute(prompt, "7", sampling, max_length, Characters(), engine)
    return asyncio.run(run), sampling


def test_the_second_attempt_is_written_under_question_first_attempt_and_instruction():
    engine, judge = Engine("x=8", "x=7"), Judge()
    output, sampling = episode(engine, judge=judge)
    assert [asked for asked, _, _ in engine.asked] == ["Q:", "Q:x=8$\nHm.\n"]
    assert [limit for _, limit, _ in engine.asked] == [20, 20] and sampling.max_tokens == 20
    assert Characters().decode(output["observation_tokens"], False) == "Q:x=8$\nHm.\nx=7$"
    assert output["action_ranges"] == [(2, 6), (11, 15)]
    record = output["attempts"]
    assert (record.ends, record.rewards, record.scores) == ((4, 8), (0.0, 2.0), (0.0, 1.0))
    assert record.truncated == (False, False) and output["truncated"] is False
    assert (output["reward"], output["scores"], output["extra_logs"]) == (2.0, 1.0, {"accuracy": 1.0})
    # Each is judged as an answer to the question: nothing of the first one counts for the second.
    assert sorted(judge.asked) == [("Q:x=7$", "x=7$"), ("Q:x=8$", "x=8$")]


def test_a_further_attempt_may_end_at_once():
    engine = Engine("x=8", "")
    output, _ = episode(engine)
    assert engine.least == [1, 0] and output["attempts"].ends == (4, 5) and output["attempts"].scores[1] == 0.0


def test_only_tokens_of_the_policy_have_log_probs():
    output, _ = episode(Engine("x=8", "x=7"))
    written = {place for start, end in output["action_ranges"] for place in range(start, end)}
    for place, token in enumerate(output["observation_tokens"]):
        assert output["rollout_log_probs"][place] == (-float(token) if place in written else 0.0)


def test_a_right_first_attempt_does_not_make_the_second_one_right():
    output, _ = episode(Engine("x=7", "x=9"))
    assert output["attempts"].scores == (1.0, 0.0) and output["scores"] == 0.0


def test_a_cut_first_attempt_leaves_the_second_its_room():
    engine = Engine("x=7+++++!", "x=7")
    output, _ = episode(engine, attempt_tokens=8, max_length=25)
    assert [(asked, limit) for asked, limit, _ in engine.asked] == [("Q:", 8), ("Q:x=7+++++\nHm.\n", 8)]
    assert output["attempts"].truncated == (True, False) and output["truncated"] is False
    assert len(output["observation_tokens"]) <= 25


def test_a_long_prompt_loses_its_beginning_and_no_attempt_its_room():
    engine = Engine("x=8", "x=7")
    output, _ = episode(engine, prompt="a long question:", attempt_tokens=8, max_length=25)
    assert engine.asked[0][0] == "ion:"  # 25 less two attempts of 8 and 5 tokens between them
    assert output["action_ranges"][0][0] == 4
    with pytest.raises(ValueError, match="--data.max_len 21 has no room for 2 attempts of 8 tokens with 5"):
        episode(Engine(), attempt_tokens=8, max_length=21)


def test_in_a_chain_no_ending_stands_between_attempts_and_the_chain_is_judged():
    engine, judge = Engine("x=7", "it is"), Judge()
    output, _ = episode(engine, judge=judge, within_chain=True)
    assert engine.asked[1][0] == "Q:x=7\nHm.\n", "behind an end of text no chain goes on"
    assert [stop for _, _, stop in engine.asked] == [["Hm."], None]
    assert output["action_ranges"] == [(2, 5), (10, 16)] and output["attempts"].ends == (3, 9)
    assert output["attempts"].scores == (1.0, 1.0), "a check that changes nothing leaves the answer as it was"
    assert sorted(judge.asked) == [("Q:x=7", "x=7"), ("Q:x=7\nHm.\nit is$", "x=7\nHm.\nit is$")]


def test_a_line_that_the_policy_writes_itself_is_its_own():
    engine = Engine("x=8\nHm.?", "x=7")
    output, _ = episode(engine, within_chain=True)
    assert engine.asked[1][0] == "Q:x=8\nHm." and output["action_ranges"] == [(2, 9), (9, 13)]


def test_one_attempt_is_what_the_host_writes():
    engine = Engine("x=7")
    output, _ = episode(engine, attempts=1)
    assert engine.asked == [("Q:", 20, None)]
    assert output["action_ranges"] == [(2, 6)] and output["attempts"].ends == (4,)


def test_three_attempts_read_all_before_them():
    engine = Engine("a", "b", "c")
    output, _ = episode(engine, attempts=3)
    assert engine.asked[2][0] == "Q:a$\nHm.\nb$\nHm.\n" and output["attempts"].ends == (2, 4, 6)


def test_a_reward_that_is_no_number_names_the_flag():
    class Silent(Judge):
        async def _fetch_rewards_via_func(self, queries, prompts, labels):
            return [{"rewards": None}]

    with pytest.raises(ValueError, match="^--reward.remote_url judge.py gave the reward None"):
        episode(Engine("a", "b"), judge=Silent())


@pytest.fixture
def offline(tmp_path):
    file = tmp_path / "base.jsonl"
    file.write_text('{"question": "Q:", "response": "x=7 as the base model has it", "correct": true}\n')
    attempts = OfflineAttempts(str(file), 0.5, stage=2)
    QUESTION_DRAW.set(0.25)
    yield attempts
    QUESTION_DRAW.set(1.0)


def test_an_offline_first_attempt_is_read_and_judged_and_not_trained(offline):
    engine = Engine("x=9")
    output, _ = episode(engine, offline=offline, attempt_tokens=9)
    assert engine.asked == [("Q:x=7 as t$\nHm.\n", 9, None)], "it has the limit and the ending of an attempt"
    assert output["action_ranges"] == [(16, 20)]
    record = output["attempts"]
    assert (record.offline, record.ends, record.scores) == (True, (0, 4), (1.0, 0.0))
    chain, _ = episode(Engine("x=9"), offline=offline, attempt_tokens=9, within_chain=True)
    assert Characters().decode(chain["observation_tokens"], False) == "Q:x=7 as th\nHm.\nx=9$"


def test_the_policy_writes_where_it_should(offline):
    def writes(**changes):
        for name, value in changes.items():
            setattr(offline, name, value)
        return not episode(Engine("x=8", "x=7"), offline=offline)[0]["attempts"].offline

    assert not writes()
    assert writes(stage=1) and not writes(stage=2), "in stage 1"
    assert writes(share=0.25) and not writes(share=0.5), "the draw must lie below the share"
    assert not episode(Engine("x=8", "x=7"), prompt="another", offline=offline)[0]["attempts"].offline
    offline.wanted = False
    offline.draw()
    assert writes(), "in an evaluation"


def test_a_file_of_first_attempts_that_is_none_names_the_line(tmp_path):
    file = tmp_path / "base.jsonl"
    for text, message in (
        ("\n", "has no rows"),
        ('{"question": "Q", "response": " "}', "line 1: 'response' must be a"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_attempts(str(file))
