"""What a chain must be, each check by a row that breaks just this; and what a row gives for training."""

import copy

import pytest
from scripted_roles import cast, stumbling, written

from openrlhf_prm.annotation.records import LabelledSolution
from openrlhf_prm.data.formats_in import RowKeys, records_row
from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.checks import CHECKS, LengthOptions, faults
from openrlhf_prm.generation.chains.critics import ExactCritic
from openrlhf_prm.generation.chains.deliberate import Deliberate, DeliberateOptions
from openrlhf_prm.generation.chains.rows import label_records
from openrlhf_prm.tasks.arithmetic import check_steps, questions


@pytest.fixture(scope="module")
def rows():
    """Kept chains with mistakes that were repaired."""
    scheme = Deliberate(DeliberateOptions(tries=4), ExactCritic(check_steps))
    found = []
    for index, (text, label) in enumerate(questions("train", 12, seed=3)):
        found.append(written(scheme, Question(str(index), text, label), cast(stumbling(0.4)))[1])
    found = [row for row in found if sum(part["kind"] == "failed" for part in row["chain"]) > 1 and not row["fault"]]
    assert len(found) > 3 and all(faults(row, LengthOptions()) == [] for row in found)
    return found


def first(row, kind):
    return next(part for part in row["chain"] if part["kind"] == kind)


def unwritten(row):
    first(row, "step")["text"] += "!"
    row["response"] = "\n".join(part["text"] for part in row["chain"])


def quoted_wrongly(row):
    row["response"] = row["response"].replace(first(row, "failed")["text"], "1+1=3")


def stray(row):
    first(row, "reflection")["target"] = row["chain"][-1]["node"]


def to_itself(row):
    reflection = first(row, "reflection")
    reflection["target"] = row["chain"][row["chain"].index(reflection) - 1]["node"]


def broken(row):
    row["chain"].remove(first(row, "step"))


def twice(row):
    one, other = [part for part in row["chain"] if part["kind"] == "failed"][:2]
    event = next(event for event in row["events"] if event["node"] == other["node"] and event["role"] == "elaborator")
    row["response"] = row["response"].replace(other["text"], one["text"])
    other["text"] = event["text"] = one["text"]


def named(row):
    row["response"] += " says the Critic."


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda row: row.update(correct=False), "wrong_answer"),
        (unwritten, "unwritten_step"),
        (quoted_wrongly, "unwritten_step"),
        (stray, "stray_backtrack"),
        (to_itself, "stray_backtrack"),
        (broken, "broken_path"),
        (lambda row: row["chain"].pop(), "broken_path"),
        (twice, "repeated_step"),
        (named, "role_name"),
    ],
)
def test_each_check_finds_its_fault(rows, change, expected):
    for row in map(copy.deepcopy, rows):
        change(row)
        assert expected in faults(row, LengthOptions())
    assert expected in CHECKS


def test_a_role_that_the_question_speaks_of_may_be_named(rows):
    row = {**rows[0], "response": rows[0]["response"] + " the critic", "question": "How old is the Critic?"}
    assert faults(row, LengthOptions()) == []


def test_lengths(rows):
    tokens = rows[0]["tokens"]
    assert faults(rows[0], LengthOptions(min=tokens, max=tokens)) == []
    assert faults(rows[0], LengthOptions(min=tokens + 1)) == ["too_short"]
    assert faults(rows[0], LengthOptions(max=tokens - 1)) == ["too_long"]
    with pytest.raises(ValueError, match=r"min 5 is more than \.max 4"):
        LengthOptions(min=5, max=4)


def test_a_chain_of_nothing_but_an_answer_is_whole():
    row = written(
        Deliberate(DeliberateOptions(plan=False, recheck=False), ExactCritic(lambda question, steps: [True])),
        Question("q", "Q: 1+2=?", "3"),
        cast(lambda role, prompt, seed: "Answer: 3"),
    )[1]
    assert faults(row, LengthOptions()) == [] and row["shortcut"] == row["response"] == "Answer: 3"
    assert [record["hard_labels"] for record in label_records(row)] == [[1]]


def test_records_label_what_was_taken_back(rows):
    """A failed branch is judged as the task's own checker does; in the whole chain a mistake costs its own step."""
    for row in rows:
        records = label_records(row)
        failed = [part for part in row["chain"] if part["kind"] == "failed"]
        inner = {part["parent"] for part in failed}
        assert len(records) == 1 + sum(part["node"] not in inner for part in failed)
        whole, *branches = records
        assert whole["steps"] == [part["text"] for part in row["chain"]] and whole["correct"]
        assert whole["hard_labels"] == [int(not part["wrong"]) for part in row["chain"]]
        assert sum(part["wrong"] for part in row["chain"]) > 1
        for branch in branches:
            assert branch["hard_labels"] == check_steps(row["question"], branch["steps"])
            assert not branch["correct"] and branch["mc_values"][-1] == 0.0
        for place, record in enumerate(records):
            assert (record["solution"], record["solutions"]) == (place, len(records))
            head = ("id", "solution", "solutions", "question", "label", "root")
            LabelledSolution(**{key: value for key, value in record.items() if key not in head})
            for soft in (False, True):
                assert records_row(record, RowKeys(soft=soft))[2] == record["hard_labels"]


def test_shares_of_rollouts_are_soft_labels():
    steps = [("failed", 1, 0, 0.0), ("step", 2, 0, 0.75), ("failed", 3, 2, 0.25), ("answer", 4, 2, 1.0)]
    chain = [
        {"kind": kind, "text": f"s{node}", "node": node, "parent": parent, "score": score, "wrong": kind == "failed"}
        for kind, node, parent, score in steps
    ]
    for place, target in ((1, 0), (4, 2)):
        chain.insert(place, {"kind": "reflection", "text": "no", "node": None, "target": target, "wrong": False})
    row = {"id": "q", "question": "?", "label": "1", "response": "r", "correct": True, "chain": chain, "rollouts": 4}
    whole, first, second = label_records(row)
    assert whole["hard_labels"] == [0, 1, 1, 0, 1, 1] and whole["soft_labels"] == [0.0, 1, 0.75, 0.25, 0.75, 1]
    assert whole["mc_values"] == [0.0, None, 0.75, 0.25, None, 1.0]
    assert (whole["right"], whole["rollouts"]) == ([0, 0, 3, 1, 0, 0], [4, 0, 4, 4, 0, 0])
    assert (first["steps"], first["mc_values"], first["soft_labels"]) == (["s1"], [0.0], [0])
    assert (second["steps"], second["mc_values"], second["soft_labels"]) == (["s2", "s3"], [0.75, 0.0], [0.75, 0])
    assert [record["soft_labels"] for record in label_records({**row, "rollouts": 0})] == [
        [0, 1, 1, 0, 1, 1],
        [0],
        [1, 0],
    ]
