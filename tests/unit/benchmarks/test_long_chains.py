"""The benchmark of chains with repaired mistakes: what is planted, what is trained on, which places are compared."""

import json

import pytest

from benchmarks import long_chains
from benchmarks.repaired_chains import (
    PLANTED,
    branches,
    clean_records,
    has_false_sum,
    planted_questions,
    read_rows,
    write_equal_tokens,
)
from openrlhf_prm.tasks.arithmetic import check_steps, split_of

QUESTION = "Q: 18+15+11=?\n"


def part(kind: str, text: str, node: int | None = None, parent: int | None = None, wrong: bool = False) -> dict:
    return {"kind": kind, "text": text, "node": node, "parent": parent, "target": 0, "score": None, "wrong": wrong}


CHAIN = [
    part("failed", "18+15=23", 1, 0, wrong=True),
    part("reflection", "- > =?"),
    part("step", "18+15: 8+5=13, 1+1+1=3 > 33", 2, 0),
    part("failed", "33+11=54", 3, 2, wrong=True),
    part("reflection", "- > 18+15: 8+5=13, 1+1+1=3 > 33"),
    part("step", "33+11=44", 4, 2),
    part("answer", "Answer: 44", 5, 4),
]
WAY = [one["text"] for one in CHAIN if one["kind"] in ("step", "answer")]
ROW = {
    "id": "a",
    "question": QUESTION,
    "label": "44",
    "chain": CHAIN,
    "response": "\n".join(one["text"] for one in CHAIN),
    "shortcut": "\n".join(WAY),
    "tokens": 50,
    "shortcut_tokens": 30,
    "correct": True,
    "rollouts": 0,
}


@pytest.fixture
def chains(tmp_path):
    path = tmp_path / "chains.jsonl"
    path.write_text("".join(json.dumps({**ROW, "id": str(number)}) + "\n" for number in range(5)))
    return path


def test_a_planted_mistake_is_the_last_step_and_the_only_one():
    rows = list(planted_questions("tune", 40, seed=1))
    assert len(rows) == 40 and [row["kind"] for row in rows[:3]] == [*PLANTED, PLANTED[0]]
    for row in rows:
        question, *steps = row["question"].splitlines()
        assert split_of(question + "\n") == "tune", "no training question"
        assert check_steps(question, steps) == [True] * (len(steps) - 1) + [False]
        assert has_false_sum(steps[-1:]) and not has_false_sum(steps[:-1])
        assert (">" in steps[-1]) == (row["kind"] == "slip"), "the habit's mistakes are quick steps"
    assert rows == list(planted_questions("tune", 40, seed=1)) != list(planted_questions("tune", 40, seed=2))


@pytest.mark.parametrize(
    ("steps", "false"),
    [
        ([], False),
        (["18+15=33", "33+11: 3+1=4, 3+1=4 > 44", "Answer: 44"], False),
        (["18+15=23"], True),
        (["18+15: 8+5=13, 1+1+1=3 > 34"], True),
        (["- > 18+15=23"], False),  # quoted
        (["18+b15=23 "], True),
    ],
)
def test_false_sums(steps, false):
    assert has_false_sum(steps) == false


def test_both_kinds_have_the_same_tokens_as_far_as_whole_chains_allow(chains, tmp_path):
    taken = write_equal_tokens(chains, tmp_path)
    assert taken["shortest"]["tokens"] == 150 and taken["shortest"]["rows"] == 5
    assert taken["long"]["tokens"] == 150 and taken["long"]["rows"] == 3 and taken["long"]["mean_tokens"] == 50
    assert read_rows(tmp_path / "long.sft.jsonl")[0] == {"input": QUESTION, "output": ROW["response"] + "\n"}
    assert read_rows(tmp_path / "shortest.sft.jsonl")[0]["output"] == ROW["shortcut"] + "\n"


def test_clean_labels_are_as_many_and_hold_no_repair(chains):
    records = clean_records(chains)
    assert len(records) == 5 * (1 + len(branches(ROW))) == 15
    assert records[0] == {"question": QUESTION, "steps": WAY, "hard_labels": [1, 1, 1]}
    assert [record["hard_labels"] for record in records[1:3]] == [[0], [1, 0]]
    assert not any(step.startswith("- >") for record in records for step in record["steps"])


def test_a_repair_is_compared_with_the_same_step_of_the_chain_without_detours():
    assert [(CHAIN[place]["text"], WAY[at]) for place, at in long_chains.repairs(ROW)] == [
        (WAY[0], WAY[0]),
        (WAY[1], WAY[1]),
    ]
    assert long_chains.repairs({"chain": [one for one in CHAIN if one["kind"] in ("step", "answer")]}) == []


def test_figures_of_a_prm_that_remembers_every_mistake(tmp_path):
    """Scores of such a PRM stand where `vllm-prm score` would write them."""
    after = [[1.0] * 7, [1.0] * 3, [1.0, 0.0]]
    after[0][:] = [0.1, 0.1, 0.2, 0.0, 0.0, 0.0, 0.0]
    (tmp_path / "prm.scored.jsonl").write_text("".join(json.dumps({"step_rewards": row}) + "\n" for row in after))
    plain = [{"question": QUESTION, "steps": ["18+15=33", "33+11=54"], "hard_labels": [1, 0]}]
    figures = long_chains.prm_figures(tmp_path / "prm", [ROW], plain)
    assert figures["repairs"] == 2 and figures["gap"] == pytest.approx(0.9)
    assert figures["score_after_repair"] == pytest.approx(0.1) and figures["score_clean"] == 1.0
    assert figures["auc_plain"] == 1.0
    # Mistakes 0.1 and 0; right steps 0.2, 0, 0: one pair won, three lost or half won.
    assert figures["auc_in_chains"] == pytest.approx((1 + 1 + 0 + 0.5 + 0 + 0.5) / 6)
    asked = read_rows(tmp_path / "prm.asked.jsonl")
    assert [len(row["steps"]) for row in asked] == [7, 3, 2]
