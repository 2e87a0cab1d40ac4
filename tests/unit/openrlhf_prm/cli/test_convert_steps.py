"""The command `convert_steps`: both files, the summary, and flags that are wrong."""

import json

import pytest

from openrlhf_prm.cli.convert_steps import main


def prmbench_row(number: int) -> dict:
    return {
        "idx": str(number),
        "original_question": f"Q{number}?",
        "modified_question": "How many, at most?",
        "original_process": ["2+2=4.", "So 4."],
        "modified_process": ["2+2=5.", "Then 5-1=4.", "So 5."],
        "error_steps": [1, 3],
    }


def test_the_command_writes_both_files_and_reports(tmp_path, capsys):
    source = tmp_path / "in.jsonl"
    rows = [*(prmbench_row(number) for number in range(30)), {"idx": "x"}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    output, heldout = tmp_path / "train.jsonl", tmp_path / "heldout.jsonl"
    flags = ["--format", "prmbench", "--input", str(source), "--output", str(output), "--heldout", str(heldout)]
    assert main([*flags, "--heldout_share", "0.5", "--max_rows", "7", "--max_heldout_rows", "5"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out.splitlines()[-1]) == {"rows": {str(output): 7, str(heldout): 5}, "left_out": 1}
    assert "in.jsonl line 31: 'original_question' must be a text" in captured.err
    assert all(set(json.loads(line)) == {"question", "steps", "hard_labels"} for line in output.open())


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--input", "nowhere.jsonl"], "--input: no such file: nowhere.jsonl"),
        (["--input", __file__, "--heldout_share", "1"], "--heldout_share must be between 0 and 1"),
        (["--input", __file__, "--max_rows", "0"], "--max_rows must be at least 1"),
        (["--input", __file__], "line 1: not JSON"),
    ],
)
def test_wrong_flags_end_in_one_line(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as error:
        main(["--format", "gsm8k", "--output", str(tmp_path / "out.jsonl"), *flags])
    assert error.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
