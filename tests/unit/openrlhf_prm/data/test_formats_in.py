"""Rows of other trainers -> question, steps and targets, by hand, and back from the project's own converter."""

import pytest

from openrlhf_prm.data.formats_in import ROW_FORMATS, RowKeys, seen_format, with_format
from openrlhf_prm.data.formats_out import LABEL_FORMATS, LabelStyle, label_rows

STEP = RowKeys(placeholder_token="<step>", reward_tokens=("good", "bad"))
OUTCOME = RowKeys(outcome=True)


@pytest.mark.parametrize(
    ("form", "keys", "row", "expected"),
    [
        (
            "records",
            RowKeys(soft=True),
            {"question": "Q", "steps": ["a"], "hard_labels": [1], "soft_labels": [0.5]},
            ("Q", ["a"], [0.5]),
        ),
        (
            "records",
            RowKeys(),
            {"question": "Q", "steps": ["a", "b", "c"], "hard_labels": [None, 1, False]},
            ("Q", ["a", "b", "c"], [None, 1.0, 0.0]),
        ),
        ("records", OUTCOME, {"question": "Q", "steps": ["a", "b"], "correct": False}, ("Q", ["a", "b"], [0.0])),
        ("records", OUTCOME, {"question": "Q", "response": "a\nb", "correct": 1}, ("Q", ["a\nb"], [1.0])),
        ("trl", RowKeys(), {"prompt": "Q", "completions": ["a"], "labels": [True]}, ("Q", ["a"], [1.0])),
        (
            "trl",
            RowKeys(),
            {"prompt": [{"role": "user", "content": "Q"}], "completions": ["a"], "labels": [False]},
            ([{"role": "user", "content": "Q"}], ["a"], [0.0]),
        ),
        ("trl", OUTCOME, {"prompt": "Q", "completions": ["a", "b"], "labels": [False, True]}, ("Q", ["a", "b"], [1.0])),
        # The white space before a placeholder and the line break after it are the format's, not the step's.
        (
            "openrlhf",
            STEP,
            {"input": "Q\nmore\na <step>\nb\nc <step>\n", "label": ["good", "bad"]},
            ("Q\nmore\n", ["a", "b\nc"], [1.0, 0.0]),
        ),
        ("openrlhf", STEP, {"input": "a <step>", "label": [0.25]}, ("", ["a"], [0.25])),
        ("openrlhf", STEP, {"input": "Q\na <step> no label", "label": [1]}, ("Q\n", ["a"], [1.0])),
        (
            "openrlhf",
            RowKeys(),
            {"input": "Q? Step 1: a\nb ки\nStep 2: c ки", "label": ["+", "-"]},
            ("Q? ", ["Step 1: a\nb", "Step 2: c"], [1.0, 0.0]),
        ),
        (
            "math_shepherd",
            RowKeys(),
            {"input": "Q? Step 1: 1+1 ки\nStep 2: c-d ки\n", "label": "Q? Step 1: 1+1 +\nStep 2: c-d -"},
            ("Q? ", ["Step 1: 1+1", "Step 2: c-d"], [1.0, 0.0]),
        ),
    ],
)
def test_rows_are_read(form, keys, row, expected):
    assert ROW_FORMATS[form](row, keys) == expected
    assert seen_format(row, keys) == form


@pytest.mark.parametrize(
    ("form", "keys", "row", "message"),
    [
        (
            "trl",
            RowKeys(),
            {"prompt": "Q", "completions": ["a"], "labels": [True, False]},
            "1 completions but 2 labels",
        ),
        (
            "trl",
            RowKeys(),
            {"prompt": "Q", "completions": ["a", "b"], "labels": [True, None]},
            r"labels must be numbers in \[0, 1\], got \[True, None\]",
        ),
        ("trl", RowKeys(), {"prompt": ["Q"], "completions": ["a"], "labels": [True]}, "'prompt' must be a text"),
        ("openrlhf", STEP, {"input": "Q a", "label": []}, "no placeholder '<step>' in 'input'"),
        ("openrlhf", STEP, {"input": "a<step>b<step>", "label": ["good"]}, "2 placeholders but 1 labels"),
        ("openrlhf", STEP, {"input": "a<step>", "label": ["+"]}, "among the reward tokens .*got '\\+'"),
        ("openrlhf", STEP, {"input": "a<step>b<step>", "label": ["good", 0.5]}, "among the reward tokens .*got 0.5"),
        ("openrlhf", STEP, {"input": "a<step>", "label": [1.5]}, r"labels must be numbers in \[0, 1\]"),
        ("math_shepherd", RowKeys(), {"input": "Q Step 1: a ки", "label": "Q Step 1: b +"}, "must repeat the input"),
        ("math_shepherd", RowKeys(), {"input": "Q Step 1: a ки", "label": "Q Step 1: a ки"}, "must repeat the input"),
        ("math_shepherd", RowKeys(), {"input": "aки", "label": "a+ b"}, "must repeat the input"),
        ("math_shepherd", RowKeys(), {"input": "a", "label": "a"}, "no 'ки' in 'input'"),
        ("records", OUTCOME, {"question": "Q", "correct": True}, "no key 'response'"),
        ("records", OUTCOME, {"question": "Q", "response": "a", "correct": 2}, r"numbers in \[0, 1\]"),
    ],
)
def test_bad_rows_say_what_is_wrong(form, keys, row, message):
    with pytest.raises(ValueError, match=message):
        ROW_FORMATS[form](row, keys)


@pytest.mark.parametrize("form", sorted(set(LABEL_FORMATS) - {"records"}))
def test_what_the_converter_writes_is_read_back(form):
    steps = ["Step 1: 3 - 2 = 1", "Step 2: so + 1", ""]
    record = {"question": "How many?\n", "steps": steps, "hard_labels": [1, 0, 1], "soft_labels": [1.0, 0.25, 1.0]}
    [(_, row)] = label_rows(form, record, LabelStyle())
    question, read, targets = ROW_FORMATS[form](row, RowKeys())
    assert question.strip() == "How many?" and targets == [1.0, 0.0, 1.0]
    assert read == [*steps[:2], "" if form != "math_shepherd" else "Step 3:"]
    if form == "openrlhf":
        [(_, row)] = label_rows(form, record, LabelStyle(soft=True))
        assert ROW_FORMATS[form](row, RowKeys())[2] == [1.0, 0.25, 1.0]


def test_the_first_row_of_a_known_kind_decides():
    rows = [("line 1", {}), ("line 2", {"completions": []}), ("line 3", {"steps": []})]
    form, again = with_format(iter(rows), RowKeys())
    assert form == "trl" and list(again) == rows
    form, again = with_format(iter(rows[:1]), RowKeys())
    assert form == "records" and list(again) == rows[:1]
