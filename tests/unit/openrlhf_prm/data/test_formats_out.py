"""Step labels in the formats of other trainers, read back as those trainers read them."""

import json

import pytest

from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root
from openrlhf_prm.cli.convert_steps import main
from openrlhf_prm.data.formats_in import ROW_FORMATS, RowKeys
from openrlhf_prm.data.formats_out import LabelStyle, label_rows
from openrlhf_prm.data.questions import Question
from openrlhf_prm.data.rows import read_rows

RECORD = {
    "question": "1+1+1=?\n",
    "steps": ["1+1=2", "Step 2: 2+1=4"],
    "hard_labels": [1, 0],
    "soft_labels": [0.75, 0.0],
}


def row(form: str, record: dict = RECORD, **style) -> dict:
    [(question, made)] = label_rows(form, record, LabelStyle(**style))
    assert question == record["question"]
    return made


def test_trl():
    assert row("trl") == {
        "prompt": "1+1+1=?\n",
        "completions": ["1+1=2", "Step 2: 2+1=4"],
        "labels": [True, False],
    }


def test_math_shepherd():
    assert row("math_shepherd", task="GSM8K") == {
        "input": "1+1+1=? Step 1: 1+1=2 ки\nStep 2: 2+1=4 ки",
        "label": "1+1+1=? Step 1: 1+1=2 +\nStep 2: 2+1=4 -",
        "task": "GSM8K",
    }


def test_openrlhf_has_one_label_per_placeholder():
    made = row("openrlhf", placeholder_token="<step>", step_separator="", reward_tokens=("good", "bad"))
    assert made == {"input": "1+1+1=?\n1+1=2<step>\nStep 2: 2+1=4<step>", "label": ["good", "bad"]}
    made = row("openrlhf", soft=True)
    assert made["label"] == [0.75, 0.0] and made["input"].count("ки") == 2


@pytest.mark.parametrize(
    ("form", "record", "style", "fault"),
    [
        ("trl", RECORD, {"soft": True}, "trl knows hard labels only"),
        ("math_shepherd", RECORD, {"soft": True}, "math_shepherd knows hard labels only"),
        ("math_shepherd", {**RECORD, "question": "ки?"}, {}, "'ки' stands in the text itself"),
        ("openrlhf", {**RECORD, "steps": ["a<p>", "b"]}, {"placeholder_token": "<p>"}, "'<p>' stands in the text"),
        ("trl", {**RECORD, "steps": [], "hard_labels": []}, {}, "has no steps"),
        ("trl", {**RECORD, "hard_labels": [1]}, {}, "one entry for each of the 2 steps"),
        ("trl", {"prompt": "x"}, {}, "not a step-label record"),
    ],
)
def test_what_cannot_be_converted_is_said(form, record, style, fault):
    with pytest.raises(ValueError, match=fault):
        row(form, record, **style)


UNLABELLED = {"question": "q", "steps": ["a", "b", "c"], "hard_labels": [1, None, 0], "soft_labels": [1, None, 0.25]}


def test_a_step_without_a_label_is_masked_where_the_format_can_say_so():
    assert row("records", UNLABELLED) == UNLABELLED
    made = row("openrlhf", UNLABELLED, placeholder_token="<p>")
    assert made == {"input": "q\na <p>\nb\nc <p>", "label": ["+", "-"]}
    assert row("openrlhf", UNLABELLED, soft=True)["label"] == [1, 0.25]
    made = row("math_shepherd", UNLABELLED)
    assert made["input"] == "q Step 1: a ки\nStep 2: b\nStep 3: c ки"
    assert made["label"] == "q Step 1: a +\nStep 2: b\nStep 3: c -"
    with pytest.raises(ValueError, match="step 2 has no label, which trl cannot say"):
        row("trl", UNLABELLED)


@pytest.mark.parametrize(("form", "first"), [("openrlhf", "b\nc"), ("math_shepherd", "Step 2: b\nStep 3: c")])
def test_it_is_read_back_as_a_part_of_the_next_step(form, first):
    _, steps, targets = ROW_FORMATS[form](row(form, UNLABELLED), RowKeys())
    assert steps[1:] == [first] and targets == [1.0, 0.0]


def test_trl_leaves_out_a_row_that_it_cannot_say_and_names_its_line(tmp_path, capsys):
    labels, output = tmp_path / "labels.jsonl", tmp_path / "out.jsonl"
    labels.write_text("".join(json.dumps(each) + "\n" for each in (RECORD, UNLABELLED)))
    argv = ["--format", "trl", "--input", str(labels), "--output", str(output)]
    assert main(argv) == 0
    fault = f"{labels} line 2: step 2 has no label, which trl cannot say"
    assert fault in capsys.readouterr().err and len(output.read_text().splitlines()) == 1
    with pytest.raises(SystemExit) as end:
        main([*argv, "--strict"])
    assert end.value.code == 2 and fault in capsys.readouterr().err


@pytest.fixture
def labels(tmp_path) -> str:
    """Two questions of two solutions, as the annotators write them; one has an unmeasured step."""
    path = tmp_path / "labels.jsonl"
    with LabelFile(path, {}) as file:
        for name in ("a", "b"):
            right = LabelledSolution(f"{name}=7", [f"{name}=7"], [1.0], [1], [1.0], [0], [0], [0], True, False, [0])
            wrong = LabelledSolution(
                "x\ny\nz", ["x", "y", "z"], [None, 0.5, 0.0], [1, 1, 0], [0.5, 0.5, 0.0], [0, 1, 0], [0, 2, 0], [0] * 3,
                False, False, [0] * 3,
            )  # fmt: skip
            file.append(Question(name, f"{name}?", "7"), AnnotatedQuestion(Root(4, 8), [right, wrong], {}))
    return str(path)


@pytest.mark.parametrize("form", ["trl", "openrlhf", "math_shepherd", "records"])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_datasets_reads_what_is_written(labels, tmp_path, capsys, form, suffix):
    output = tmp_path / f"out.{suffix}"
    assert main(["--format", form, "--input", labels, "--output", str(output)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == {str(output): 4}
    from datasets import load_dataset

    loaded = load_dataset(
        {"jsonl": "json"}.get(suffix, suffix), data_files=str(output), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded.num_rows == 4
    # The order is the file's, the content is what was written.
    expected = [label_rows(form, record, LabelStyle())[0][1] for _, record in read_rows(labels)]
    assert loaded.to_list() == expected


def test_records_go_to_parquet_and_back(labels, tmp_path):
    parquet, back = tmp_path / "labels.parquet", tmp_path / "back.jsonl"
    main(["--format", "records", "--input", labels, "--output", str(parquet)])
    main(["--format", "records", "--input", str(parquet), "--output", str(back)])
    assert [row for _, row in read_rows(back)] == [row for _, row in read_rows(labels)]


def test_bad_parquet_ends_in_one_line(tmp_path, capsys):
    path = tmp_path / "labels.parquet"
    path.write_text("no parquet")
    with pytest.raises(SystemExit) as error:
        main(["--format", "trl", "--input", str(path), "--output", str(tmp_path / "out.jsonl")])
    assert error.value.code == 2
    assert "not a Parquet file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "labels", "fault"),
    [
        ("hard", [-100, 1], "step 1 must be 0 or 1, true or false, or null, got -100"),
        ("hard", [0.9, 0.1], "step 1 must be 0 or 1, true or false, or null, got 0.9"),
        ("hard", ["-", "+"], "step 1 must be 0 or 1, true or false, or null, got '-'"),
        ("hard", [1, ""], "step 2 must be 0 or 1, true or false, or null, got ''"),
        ("hard", [None, None], "'hard_labels' has no label at all"),
        ("soft", [0.5, 1.5], r"step 2 must be a number in \[0, 1\] or null, got 1.5"),
        ("soft", [float("nan"), 0.5], r"step 1 must be a number in \[0, 1\] or null, got nan"),
        ("soft", ["0.5", 1], r"step 1 must be a number in \[0, 1\] or null, got '0.5'"),
    ],
)
def test_no_label_is_invented(kind, labels, fault):
    record = {"question": "q", "steps": ["a", "b"], f"{kind}_labels": labels}
    for form in ("openrlhf", "records", *(["trl", "math_shepherd"] if kind == "hard" else [])):
        with pytest.raises(ValueError, match=fault):
            label_rows(form, record, LabelStyle(soft=kind == "soft"))
