"""Step-labelled rows -> tokens, positions and targets; bad rows are named, cut steps are counted."""

import json

import pytest
import torch

from openrlhf_prm.cli import train_prm
from openrlhf_prm.trainers.prm_data import DataReport, LabelledSteps, StepLabelDataset, read_source, usable_rows
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


def dataset(*rows: LabelledSteps, max_len: int = 100) -> StepLabelDataset:
    return StepLabelDataset(list(rows), DataReport(), FAMILY, PAD, max_len)


def test_a_batch_scores_each_step_at_its_placeholder():
    data = dataset(LabelledSteps("Q", ["a", "bc"], [1.0, 0.25]), LabelledSteps("Q?", ["+"], [0.0]))
    batch = data.collate([data[0], data[1]])
    text = [ord(character) for character in "Qa\n"]
    assert batch.token_ids.tolist() == [
        [*text, STEP, ord("b"), ord("c"), ord("\n"), STEP],
        [ord("Q"), ord("?"), PLUS, ord("\n"), STEP, PAD, PAD, PAD],
    ]
    assert batch.attention_mask.tolist() == [[1] * 8, [1] * 5 + [0] * 3]
    assert [mask.nonzero().flatten().tolist() for mask in batch.step_mask] == [[3, 7], [4]]
    assert batch.targets.tolist() == [1.0, 0.25, 0.0]
    assert batch.targets.dtype == torch.float32
    assert batch.rows == [0, 1]


def test_a_placeholder_inside_a_step_is_not_scored():
    class Tricky(Characters):
        def encode(self, text, add_special_tokens):
            return [STEP if character == "#" else ord(character) for character in text.replace("<step>", "#")]

    family = PlaceholderFamily(Tricky(), placeholder_token="<step>", reward_tokens=["+", "-"], step_separator="\n")
    data = StepLabelDataset([LabelledSteps("Q", ["a#", "b"], [1.0, 0.0])], DataReport(), family, PAD, 100)
    batch = data.collate([data[0]])
    assert batch.token_ids[0].tolist().count(STEP) == 3
    assert batch.step_mask[0].nonzero().flatten().tolist() == [4, 7]


@pytest.mark.parametrize(("max_len", "steps"), [(100, 2), (8, 2), (7, 1), (4, 1)])
def test_steps_beyond_the_limit_are_cut_and_counted(max_len, steps):
    data = dataset(LabelledSteps("Q", ["a", "bc"], [1.0, 0.0]), max_len=max_len)
    batch = data.collate([data[0]])
    assert batch.step_mask.sum() == len(batch.targets) == steps
    assert batch.token_ids.shape[1] == (8 if steps == 2 else 4) <= max_len
    assert (data.report.dropped_steps, data.report.cut_rows) == (2 - steps, int(steps < 2))


def test_a_solution_without_a_step_left_is_dropped():
    data = dataset(LabelledSteps("Q" * 10, ["a"], [1.0]), LabelledSteps("Q", ["a"], [1.0]), max_len=4)
    assert len(data) == 1
    assert "1 steps of 1 solutions beyond --data.max_len left out" in str(data.report)
    with pytest.raises(ValueError, match="--data.max_len 3 cuts every step off"):
        dataset(LabelledSteps("Q", ["a"], [1.0]), max_len=3)


KEYS = {"question_key": "question", "steps_key": "steps", "label_key": "labels"}
GOOD = {"question": "Q", "steps": ["a", "b"], "labels": [1, 0]}
BAD = [
    ({"question": "Q", "steps": ["a"]}, "no key 'labels'; the row has question, steps"),
    ({**GOOD, "labels": [1]}, "2 steps but 1 labels"),
    ({**GOOD, "labels": 1}, "2 steps but no list of labels"),
    ({**GOOD, "labels": [1, 2]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "labels": [1, float("nan")]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "labels": [1, "+"]}, r"labels must be numbers in \[0, 1\]"),
    ({**GOOD, "steps": [], "labels": []}, "no steps"),
    ({**GOOD, "steps": "ab"}, "'steps' must be a list of texts"),
    ({**GOOD, "question": 3}, "'question' must be a text"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_bad_rows_are_left_out_and_named(bad, message):
    rows, report = usable_rows([("f line 1", GOOD), ("f line 2", bad), ("f line 3", GOOD)], **KEYS)
    assert rows == [LabelledSteps("Q", ["a", "b"], [1.0, 0.0])] * 2
    assert report.rows == 2 and len(report.bad_rows) == 1
    with pytest.raises(ValueError, match=f"^f line 2: .*{message}"):
        usable_rows([("f line 1", GOOD), ("f line 2", bad)], **KEYS, strict=True)
    with pytest.raises(ValueError, match="no usable row"):
        usable_rows([("f line 2", bad)], **KEYS)


def test_hard_soft_and_boolean_labels_become_probabilities():
    row = {**GOOD, "soft": [0.25, 1.0], "flags": [True, False]}
    assert usable_rows([("x", row)], **{**KEYS, "label_key": "soft"})[0][0].targets == [0.25, 1.0]
    assert usable_rows([("x", row)], **{**KEYS, "label_key": "flags"})[0][0].targets == [1.0, 0.0]


def test_sources_are_read_with_their_places(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(GOOD) + "\n")
    second.write_text(json.dumps(GOOD) + "\nnot json\n")
    rows = read_source(f"{first}, {second}")
    assert [next(rows)[0] for _ in range(3)] == [f"{first} line 1", f"{first} line 3", f"{second} line 1"]
    with pytest.raises(ValueError, match="b.jsonl line 2: not JSON"):
        next(rows)
    with pytest.raises(ValueError, match="no such file: nowhere.jsonl"):
        next(read_source("nowhere.jsonl"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train.max_epochs", "0"], "--train.max_epochs must be at least 1"),
        (["--train.batch_size", "12"], "--train.batch_size 12 must be a multiple of 8"),
        (["--adam.lr", "0"], "--adam.lr must be above 0"),
        (["--model.model_name_or_path", "./nowhere"], "no checkpoint (config.json) in ./nowhere"),
        (["--ckpt.output_dir", "."], "--ckpt.output_dir . already exists"),
        (["--prm.head", "value"], "invalid choice: 'value'"),
        (["--data.label_kind", "vague"], "invalid choice: 'vague'"),
    ],
)
def test_bad_flags_end_with_one_line(capsys, flags, message):
    with pytest.raises(SystemExit) as end:
        train_prm.main(["--model.model_name_or_path", "org/policy", "--data.dataset", "x.jsonl", *flags])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(("kind", "key", "expected"), [("hard", None, "hard_labels"), ("soft", None, "soft_labels")])
def test_the_kind_of_label_names_its_key(tmp_path, kind, key, expected):
    flags = ["--model.model_name_or_path", "org/policy", "--data.dataset", "x.jsonl", "--data.label_kind", kind]
    args = train_prm.nested(train_prm.build_parser().parse_args(flags))
    args.ckpt.output_dir = str(tmp_path / "new")
    train_prm.check(args)
    assert args.data.label_key == expected
