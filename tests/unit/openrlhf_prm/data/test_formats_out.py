"""Step labels in the formats of other trainers, read back as those trainers read them."""

import json

import pytest

from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution, Root
from openrlhf_prm.cli.convert_steps import main
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


@pytest.fixture
def labels(tmp_path) -> str:
    """Two questions of two solutions, as the annotators write them; one has an unmeasured step."""
    path = tmp_path / "labels.jsonl"
    with LabelFile(path, {}) as file:
        for name in ("a", "b"):
            right = LabelledSolution(f"{name}=7", [f"{name}=7"], [1.0], [1], [1.0], [0], [0], [0], True, False)
            wrong = LabelledSolution(
                "x\ny\nz", ["x", "y", "z"], [None, 0.5, 0.0], [1, 1, 0], [0.5, 0.5, 0.0], [0, 1, 0], [0, 2, 0], [0] * 3,
                False, False,
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
        ("hard", [-100, 1], "step 1 must be 0 or 1, or true or false, got -100"),
        ("hard", [0.9, 0.1], "step 1 must be 0 or 1, or true or false, got 0.9"),
        ("hard", ["-", "+"], "step 1 must be 0 or 1, or true or false, got '-'"),
        ("hard", [1, None], "step 2 must be 0 or 1, or true or false, got None"),
        ("soft", [0.5, 1.5], r"step 2 must be a number in \[0, 1\], got 1.5"),
        ("soft", [float("nan"), 0.5], r"step 1 must be a number in \[0, 1\], got nan"),
        ("soft", ["0.5", 1], r"step 1 must be a number in \[0, 1\], got '0.5'"),
    ],
)
def test_no_label_is_invented(kind, labels, fault):
    record = {"question": "q", "steps": ["a", "b"], f"{kind}_labels": labels}
    for form in ("openrlhf", "records", *(["trl", "math_shepherd"] if kind == "hard" else [])):
        with pytest.raises(ValueError, match=fault):
            label_rows(form, record, LabelStyle(soft=kind == "soft"))
