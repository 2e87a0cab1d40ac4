"""Step-labelled rows -> tokens, positions and targets; bad rows are named, cut steps are counted."""

import json
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest
import torch

from openrlhf_prm.data.formats_in import LabelledSteps, RowKeys, records_row
from openrlhf_prm.prm_training.dataset import DataReport, StepLabelDataset, read_source, usable_rows
from vllm_prm.families.placeholder import PlaceholderFamily

STEP, PLUS, MINUS, PAD = 900, ord("+"), ord("-"), 901


class Characters:
    """One token a character, and one for the placeholder `<step>`."""

    unk_token_id = unk_token = chat_template = None
    all_special_tokens, added_tokens_decoder = [], {}

    def get_vocab(self):
        return {"<step>": STEP, "+": PLUS, "-": MINUS}

    def encode(self, text, add_special_tokens):
        assert add_special_tokens is False
        return [STEP] if text == "<step>" else [ord(character) for character in text]


FAMILY = PlaceholderFamily(
    Characters(), placeholder_token="<step>", reward_tokens=["+", "-"], step_separator="\n", path="the test"
)


def dataset(*rows: LabelledSteps, max_len: int = 100, **options) -> StepLabelDataset:
    return StepLabelDataset(list(rows), DataReport(), FAMILY, PAD, max_len, **options)


def test_a_batch_scores_each_step_at_its_placeholder():
    data = dataset(LabelledSteps("Q", ["a", "bc"], [1.0, 0.25]), LabelledSteps("Q?", ["+"], [0.0]))
    batch = data.collate([data[0], data[1]])
    text = [ord(character) for character in "Qa\n"]
    assert batch.token_ids.tolist() == [
        [*text, STEP, ord("b"), ord("c"), ord("\n"), STEP],
        [ord("Q"), ord("?"), PLUS, ord("\n"), STEP, PAD, PAD, PAD],
    ]
    assert batch.attention_mask.tolist() == [[1] * 8, [1] * 5 + [0] * 3]
    assert (batch.step_rows.tolist(), batch.step_tokens.tolist()) == ([0, 0, 1], [3, 7, 4])
    assert batch.targets.tolist() == [1.0, 0.25, 0.0]
    assert batch.targets.dtype == torch.float32
    assert (batch.rows, batch.steps, batch.first.tolist()) == ([0, 1], [2, 1], [0, 0])


def test_a_placeholder_inside_a_step_is_not_scored():
    class Tricky(Characters):
        def encode(self, text, add_special_tokens):
            return [STEP if character == "#" else ord(character) for character in text.replace("<step>", "#")]

    family = PlaceholderFamily(Tricky(), placeholder_token="<step>", reward_tokens=["+", "-"], step_separator="\n")
    data = StepLabelDataset([LabelledSteps("Q", ["a#", "b"], [1.0, 0.0])], DataReport(), family, PAD, 100)
    batch = data.collate([data[0]])
    assert batch.token_ids[0].tolist().count(STEP) == 3
    assert batch.step_tokens.tolist() == [4, 7]


@pytest.mark.parametrize(("max_len", "steps"), [(100, 2), (8, 2), (7, 1), (4, 1)])
def test_steps_beyond_the_limit_are_cut_and_placed(max_len, steps):
    row = LabelledSteps("Q", ["a", "bc"], [1.0, 0.0], "f line 3")
    data = dataset(row, max_len=max_len)
    batch = data.collate([data[0]])
    assert len(batch.step_tokens) == len(batch.targets) == steps
    assert batch.token_ids.shape[1] == (8 if steps == 2 else 4) <= max_len
    fault = f"f line 3: 1 of 2 steps beyond --data.max_len {max_len}"
    assert (data.report.dropped_steps, data.report.cut_rows) == (2 - steps, [fault] * (2 - steps))
    if steps == 1:
        with pytest.raises(ValueError, match=f"^{fault}$"):
            dataset(row, max_len=max_len, strict=True)


@pytest.mark.parametrize(
    ("targets", "positions", "tokens"),
    [([1.0, None, 0.0], [3, 11], 12), ([None, 0.5, None], [7], 8), ([1.0, 0.0, None], [3, 7], 8)],
)
def test_a_step_without_a_label_is_written_but_not_scored(targets, positions, tokens):
    data = dataset(LabelledSteps("Q", ["a", "bc", "de"], targets, "f line 3"))
    batch = data.collate([data[0]])
    assert batch.step_tokens.tolist() == positions and batch.token_ids.shape[1] == tokens
    assert batch.targets.tolist() == [target for target in targets if target is not None]
    assert data.report.cut_rows == []


def test_a_step_beyond_the_limit_is_no_loss_without_a_label():
    row = LabelledSteps("Q", ["a", "bc", "de"], [None, 1.0, None], "f line 3")
    assert dataset(row, max_len=8, strict=True).report.dropped_steps == 0
    with pytest.raises(ValueError, match="^f line 3: 1 of 1 steps beyond --data.max_len 7$"):
        dataset(row, max_len=7, strict=True)


def test_a_solution_without_a_step_left_is_dropped():
    long = LabelledSteps("Q" * 10, ["a"], [1.0], "f line 1")
    data = dataset(long, LabelledSteps("Q", ["a"], [1.0]), max_len=4)
    assert len(data) == len(data.solutions) == 1
    expected = "1 solutions, 1 steps of 1 solutions beyond --data.max_len left out (f line 1: 1 of 1 steps beyond"
    assert str(data.report).startswith(expected)
    with pytest.raises(ValueError, match="no solution is left: 0 solutions.*raise --data.max_len 3"):
        dataset(LabelledSteps("Q", ["a"], [1.0]), max_len=3)


def test_an_outcome_is_lost_with_any_part_of_its_solution():
    rows = [LabelledSteps("Q", ["a", "bc"], [1.0], "f line 1"), LabelledSteps("Q", ["a"], [0.0], "f line 2")]
    batch = dataset(*rows, outcome=True).collate(dataset(*rows, outcome=True).rendered)
    assert (batch.targets.tolist(), batch.steps) == ([1.0, 0.0], [2, 1])
    data = dataset(*rows, outcome=True, max_len=7)
    assert [solution.targets for solution in data.rendered] == [[0.0]]
    assert data.report.cut_rows == ["f line 1: 1 of 2 steps beyond --data.max_len 7"] and data.report.dropped_steps == 2


def test_a_mapped_data_set_gives_the_same_batches(tmp_path):
    rows = [
        LabelledSteps("Q", ["a", "bc"], [1.0, 0.3], "f line 1"),
        LabelledSteps("Q" * 200, ["a"], [1.0], "f line 2"),
        LabelledSteps("Q?", ["+", "b", "c"], [0.0, None, 1.0], "f line 3"),
    ]
    data = StepLabelDataset(rows, DataReport(bad_rows=["f line 0: no steps"]), FAMILY, PAD, 100)
    data.save(tmp_path / "data")
    mapped = StepLabelDataset.mapped(tmp_path / "data", PAD)
    assert mapped.report == data.report and len(mapped.report.cut_rows) == 1
    one, other = (each.collate([each[0], each[1]]) for each in (data, mapped))
    for name, value in vars(one).items():
        same = torch.equal(value, vars(other)[name]) if isinstance(value, torch.Tensor) else value == vars(other)[name]
        assert same, name


def test_a_row_that_cannot_be_rendered_is_bad():
    rows = [
        LabelledSteps([{"role": "user", "content": "Q"}], ["a"], [1.0], "f line 1"),
        LabelledSteps("Q", ["a"], [1.0]),
    ]
    data = dataset(*rows)
    assert len(data) == 1 and data.report.bad_rows[0].startswith("f line 1: the tokenizer of the test has no chat")
    with pytest.raises(ValueError, match="^f line 1: "):
        dataset(*rows, strict=True)


def test_the_report_names_five_places_and_holds_all():
    report = DataReport(3, [f"f line {line}: no steps" for line in range(1, 8)])
    assert str(report).endswith("f line 5: no steps and 2 more)") and "7 bad rows" in str(report)
    assert len(report.as_dict()["bad_rows"]) == 7


READ = partial(records_row, keys=RowKeys(label="labels"))
GOOD = {"question": "Q", "steps": ["a", "b"], "labels": [1, 0]}
BAD = [
    ({"question": "Q", "steps": ["a"]}, "no key 'labels'; the row has question, steps"),
    ({**GOOD, "labels": [1]}, "2 steps but 1 labels"),
    ({**GOOD, "labels": 1}, "2 steps but no list of labels"),
    ({**GOOD, "labels": [1, 2]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "labels": [1, float("nan")]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "labels": [1, "+"]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "labels": [None, None]}, "no step has a label"),
    ({**GOOD, "labels": [None, 2]}, r"labels must be numbers in \[0, 1\], got \[2\]"),
    ({**GOOD, "labels": [None]}, "2 steps but 1 labels"),
    ({**GOOD, "steps": [], "labels": []}, "no steps"),
    ({**GOOD, "steps": "ab"}, "'steps' must be a list of texts"),
    ({**GOOD, "question": 3}, "'question' must be a text"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_rows_are_left_out_and_named(bad, message):
    rows, report = usable_rows([("f line 1", GOOD), ("f line 2", bad), ("f line 3", GOOD)], READ)
    assert rows == [LabelledSteps("Q", ["a", "b"], [1.0, 0.0], f"f line {line}") for line in (1, 3)]
    assert report.rows == 2 and len(report.bad_rows) == 1
    with pytest.raises(ValueError, match=f"^f line 2: .*{message}"):
        usable_rows([("f line 1", GOOD), ("f line 2", bad)], READ, strict=True)
    with pytest.raises(ValueError, match="no usable row"):
        usable_rows([("f line 2", bad)], READ)


def test_sources_are_read_with_their_places(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD) + "\n")
    second.write_text(json.dumps(GOOD) + "\nnot json\n")
    rows = read_source(f"{first}, {second}")
    assert [next(rows)[0] for _ in range(3)] == [f"{first} line 1", f"{first} line 3", f"{second} line 1"]
    table = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD]), table)
    assert list(read_source(str(table))) == [(f"{table} row 1", GOOD)]
    with pytest.raises(ValueError, match="b.jsonl line 2: not JSON"):
        next(rows)
    with pytest.raises(ValueError, match="no such file: nowhere.jsonl"):
        next(read_source("nowhere.jsonl"))
