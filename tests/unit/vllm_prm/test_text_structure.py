"""The splitter `auto` on texts as models write them."""

import pytest

from vllm_prm.splitters import split_text

TEXTS = [
    ("two lines", ["3 + 4 = 7\n", "7 + 5 = 12"]),
    ("paragraphs", ["First, we add.\nIt is 7.\n\n", "Then we stop."]),
    ("Windows", ["First.\r\n\r\n", "Second."]),
    ("display on its own lines", ["We get\n\\[\nx = 1\n\\]\n", "So x is 1."]),
    ("display in a line", ["We get\n\\[ x = 1 \\]\n", "So x is 1."]),
    ("blank lines in a display", ["We get\n$$\na\n\nb\n$$\n\n", "Done."]),
    ("environment", ["Then\n\\begin{align}\na &= b \\\\\n\nc &= d\n\\end{align}\n\n", "So a is b."]),
    ("fence", ["Code:\n```python\nx = 1\n\ny = 2\n```\n\n", "It prints 3."]),
    ("table", ["Values:\n| a | b |\n|---|---|\n| 1 | 2 |\n", "So b is twice a."]),
    ("list after a colon", ["We have:\n- one\n- two\n", "So there are two."]),
    ("numbered list", ["Cases:\n1. odd\n2. even\n", "Both work."]),
    ("markers", ["Step 1: add.\nIt is 7.\n", "Step 2: stop.\nDone."]),
    ("bold markers", ["**Step 1:** add.\n", "**Step 2:** stop."]),
    ("heading markers", ["## Step 1\nadd\n", "## Step 2\nstop"]),
    ("dashed, indented markers", ["  Step 1 - add\n", "  Step 2 - stop"]),
    ("a marker that is alone", ["Step 1: add.\n", "It is 7."]),
    ("bare delimiters", ["So\n\\[\nx\n", "y and more\n"]),
]


@pytest.mark.parametrize(("name", "steps"), TEXTS, ids=[name for name, _ in TEXTS])
def test_steps_of_a_text(name, steps):
    text = "".join(steps)
    assert "".join(split_text(text, "auto")) == text
    if name not in ("bare delimiters", "two lines"):
        assert split_text(text, "auto") == steps
    assert all(step.strip(" \n\\[]$`") for step in split_text(text, "auto"))


def test_lines_are_steps_where_nothing_joins_them():
    assert split_text("3 + 4 = 7\n7 + 5 = 12\nAnswer: 12\n", "auto") == ["3 + 4 = 7\n", "7 + 5 = 12\n", "Answer: 12\n"]


def test_long_chains_without_lines_are_split_into_sentences():
    sentence = "We take 3.5 of e.g. $x. Y$ and see that it is (again) much too small for Dr. Who. "
    steps = split_text(sentence * 8, "auto")
    assert steps == [sentence] * 8
    assert split_text(sentence, "auto") == [sentence]  # short: one step


def test_an_open_display_does_not_swallow_the_rest():
    text = "So $$x\n\n" + "A paragraph of its own.\n\n" * 300
    assert len(split_text(text, "auto")) > 100


def test_no_text_has_no_step():
    assert split_text("", "auto") == []
    assert split_text("\n\n", "auto") == ["\n\n"]


def test_blank_lines_are_seen_with_any_line_end_and_not_inside_of_a_fence():
    assert split_text("a\r\n\r\nb\n \nc", "blank_line") == ["a\r\n\r\n", "b\n \n", "c"]
    fence = "Code:\n```\nx\n\ny\n```\n\n"
    assert split_text(fence + "Done.", "blank_line") == [fence, "Done."]


def test_markers_are_seen_in_markdown():
    text = "Intro\n**Step 1:** a\n## Step 2: b\n  Step 3 - c\nSTEP 4) d\nsteps 5 and 6\n"
    assert [step.split()[0] for step in split_text(text, "marker")] == ["Intro", "**Step", "##", "Step", "STEP"]
