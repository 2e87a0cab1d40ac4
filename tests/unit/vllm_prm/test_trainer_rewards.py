"""Step scores as other trainers' rewards, over a server whose answers are made by hand."""

import asyncio
import json

import httpx
import pytest

from vllm_prm import trainer_rewards
from vllm_prm.scorer import StepScorer
from vllm_prm.trainer_rewards import PRMReward, RewardRule, text_of, verl_reward


def score_of(step):
    """The number in a step's text; `beyond` lies beyond the context."""
    return None if step == "beyond" else float(step)


def answer(request):
    items = json.loads(request.content)["data"]
    seen.append(items)
    data = [{"index": n, "step_rewards": [score_of(step) for step in item["steps"]]} for n, item in enumerate(items)]
    return httpx.Response(200, json={"model": "m", "data": data})


seen: list = []


@pytest.fixture
def scorer():
    seen.clear()
    scorer = StepScorer.from_url("http://prm:8000")
    scorer.engine._options["transport"] = httpx.MockTransport(answer)
    yield scorer
    scorer.shutdown()


COMPLETIONS = ["0.9\n\n0.25\n\n0.5", "0.75", " \n ", "0.5\n\nbeyond"]


def test_the_worst_step_counts_and_all_go_in_one_call(scorer):
    reward = PRMReward(scorer)
    assert reward(prompts=["p"] * 4, completions=COMPLETIONS, completion_ids=[[1]] * 4) == [0.25, 0.75, None, None]
    [request] = seen
    assert [item["steps"] for item in request] == [["0.9", "0.25", "0.5"], ["0.75"], [], ["0.5", "beyond"]]
    assert reward(prompts=[], completions=[]) == []


def test_another_rule_and_the_outcome(scorer):
    """reward = 2 * mean + 0.5 * outcome, by hand."""
    asked = []

    def outcome(response, row):
        asked.append((response, row))
        return row["right"]

    reward = PRMReward(
        scorer, outcome=outcome, question_key="question", aggregate="mean", splitter="|", prm_weight=2,
        outcome_weight=0.5, unscored=-1.0,
    )  # fmt: skip
    logged = {}
    rewards = reward(
        prompts=["<user>q</user>"] * 4,
        completions=["0.25|0.75", "0.5", "", "1"],
        question=["q", "r", "s", "t"],
        right=[1.0, 0.0, 1.0, None],
        trainer_state=object(),
        log_metric=lambda name, value: logged.update({name: value}),
    )
    assert rewards == [1.5, 1.0, -1.5, None]
    assert asked[1] == ("0.5", {"question": "r", "right": 0.0})
    assert [item["question"] for item in seen[0]] == ["q", "r", "s", "t"]
    assert logged == {"prm/steps": 1.0, "prm/unscored": 0.25}


def test_conversations(scorer):
    prompt = [{"role": "user", "content": "q"}]
    completion = [
        {"role": "assistant", "content": "0.5"},
        {"role": "tool", "content": "0.1"},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": "0.25"},
    ]
    assert text_of(completion) == "0.5\n\n\n\n0.25"
    assert PRMReward(scorer)(prompts=[prompt], completions=[completion]) == [0.25]
    assert seen[0][0]["messages"] == prompt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"aggregate": "median"}, "median"),
        ({"splitter": ""}, "splitter"),
        ({"prm_weight": float("nan")}, "prm_weight must be a finite number"),
        ({"unscored": float("inf")}, "unscored must be a finite number"),
        ({"outcome_weight": "1"}, "outcome_weight must be a finite number"),
    ],
)
def test_what_makes_no_rule(options, said):
    with pytest.raises(ValueError, match=said):
        RewardRule(**options)


def test_a_column_that_is_not_there(scorer):
    with pytest.raises(ValueError, match=r"no column 'question'; it has \['answer'\]"):
        PRMReward(scorer, question_key="question")(prompts=["p"], completions=["0.5"], answer=["1"])


def outcome_of_verl(data_source, solution_str, ground_truth, extra_info):
    return {"score": float(ground_truth in solution_str), "data_source": data_source}


async def outcome_later(data_source, solution_str, ground_truth, extra_info):
    return 0.5


def ask_verl(solution, extra_info, **options):
    given = {"url": "http://prm:8000", "unscored": 0.0, **options}
    return asyncio.run(verl_reward("gsm8k", solution, "0.5", extra_info, num_turns=None, **given))


def test_verl(scorer, monkeypatch):
    monkeypatch.setattr(trainer_rewards, "_scorer", lambda url, api_key_env: scorer)
    asked = {"question": "q", "index": 3}
    assert ask_verl("0.5\n\n0.75", asked) == {"score": 0.5, "prm": 0.5, "outcome": 0.0, "steps": 2.0, "unscored": 0.0}
    named = f"{__name__}:outcome_of_verl"
    mixed = ask_verl("0.5\n\n0.75", asked, outcome=named, aggregate="last", outcome_weight=2, prm_weight=4)
    assert mixed["score"] == 4 * 0.75 + 2 * 1.0
    assert ask_verl("0.5", asked, outcome=f"{__name__}:outcome_later")["score"] == 1.0
    for unscored in ("", "0.5\n\nbeyond"):
        given = ask_verl(unscored, asked, unscored="-1", outcome_weight=3)
        assert (given["score"], given["prm"], given["unscored"]) == (-1.0, -1.0, 1.0)
    for without in (None, {"index": 3}):
        with pytest.raises(ValueError, match="extra_info has no 'question'"):
            ask_verl("0.5", without)


def test_many_at_a_time(scorer, monkeypatch):
    """verl awaits the responses of a batch together."""
    monkeypatch.setattr(trainer_rewards, "_scorer", lambda url, api_key_env: scorer)

    async def batch():
        calls = [
            verl_reward("s", f"0.{n}", "", {"question": "q"}, url="http://prm:8000", unscored=0.0) for n in range(1, 10)
        ]
        return await asyncio.gather(*calls)

    assert [row["score"] for row in asyncio.run(batch())] == [float(f"0.{n}") for n in range(1, 10)]
