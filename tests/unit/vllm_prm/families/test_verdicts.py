r"""Verdicts of hand-written critiques, the malformed ones above all."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vllm_prm.families.critics.verdicts import Malformed, first_error, judgement, step_verdicts

STEPS = ["2 + 3 = 5.", "5 * 2 = 11.", "The answer is \\boxed{11}."]
RIGHT, WRONG = "\\boxed{correct}", "\\boxed{incorrect}"


@pytest.mark.parametrize(
    ("critique", "verdicts"),
    [
        # One verdict under each heading, in the forms models write them.
        (f"Step 1: fine. {RIGHT}\nStep 2: no. {WRONG}\nStep 3: no. {WRONG}", [True, False, False]),
        (f"**Step 1:** {RIGHT}\n\n### Step 2 (multiply): {RIGHT}\n- Step 3. {RIGHT}", [True, True, True]),
        (
            "Step 1: $\\boxed{\\text{Correct}}$\nstep 2: \\boxed{ correct }\nSTEP 3: \\boxed {INCORRECT}",
            [True, True, False],
        ),
        # Without headings they follow the order of the steps.
        (f"Good {RIGHT}, good {RIGHT}, bad {WRONG}.", [True, True, False]),
        # The critic stops at the first error.
        (f"Step 1: {RIGHT}\nStep 2: {WRONG}\nThe solution is wrong.", [True, False, False]),
        (f"{RIGHT} then {WRONG}", [True, False, False]),
        # It goes on after an error and is right about a later step.
        (f"Step 1: {WRONG}\nStep 2: {RIGHT}\nStep 3: {WRONG}", [False, True, False]),
        # A second thought about the same step: the last word counts.
        (f"Step 1: {WRONG} Wait, it is fine. {RIGHT}\nStep 2: {RIGHT}\nStep 3: {RIGHT}", [True, True, True]),
        (f"Step 1: {RIGHT}\nStep 2: {RIGHT}\nStep 3: {RIGHT}\nBack to it.\nStep 2: {WRONG}", [True, False, True]),
        # What it announces before the first step is no verdict, nor is the answer it repeats.
        (f"I will write {RIGHT} or {WRONG}.\nStep 1: {RIGHT}\nStep 2: {WRONG}", [True, False, False]),
        (f"Step 1: gives \\boxed{{5}} {RIGHT}\nStep 2: {RIGHT}\nStep 3: \\boxed{{11}} {RIGHT}", [True, True, True]),
        # It goes on to a step there is not, where its author would have ended it.
        (f"Step 1: {RIGHT}\nStep 2: {RIGHT}\nStep 3: {RIGHT}\n**Step 4:** {WRONG}\nStep 1: {WRONG}", [True] * 3),
        # Mentioned in a sentence, a step is no heading.
        (f"Step 1: {RIGHT}\nStep 2 follows from step 1, so {RIGHT} no: {WRONG}", [False, False, False]),
        # Code is no verdict, whether closed or not.
        (f"Step 1: {RIGHT}\n```python\nprint('{WRONG}')\n```\nStep 2: {WRONG}", [True, False, False]),
        (f"Step 1: {RIGHT}\nStep 2: {WRONG}\n```\n{RIGHT}", [True, False, False]),
        (f"Step 1: <code>{WRONG}</code> {RIGHT}\nStep 2: {WRONG}", [True, False, False]),
    ],
)
def test_step_verdicts(critique, verdicts):
    assert step_verdicts(critique, STEPS) == verdicts


@pytest.mark.parametrize(
    ("critique", "reason"),
    [
        ("", "no verdict"),
        ("All steps are correct.", "no verdict"),
        ("Step 1: \\boxed{correct", "no verdict"),
        ("Step 1: \\boxed{maybe}", "no verdict"),
        (f"```\n{RIGHT} {RIGHT} {RIGHT}\n```", "no verdict"),
        (f"{RIGHT} {RIGHT}", "no verdict on step 3"),
        (f"Step 1: {RIGHT}\nStep 3: {RIGHT}", "no verdict on step 2"),
        (f"Step 2: {WRONG}", "no verdict on step 1"),
        (f"{RIGHT} {RIGHT} {RIGHT} {RIGHT}", "4 verdicts on 3 steps"),
        (f"Step 1: {RIGHT}\nStep 2: {RIGHT}\nStep 3: {RIGHT}\nStep 5: {RIGHT}", "a verdict on step 5 of 3"),
        (f"Step 0: {RIGHT}\nStep 1: {WRONG}", "a verdict on step 0 of 3"),
        (f"Here: {RIGHT} {RIGHT} {RIGHT}\nStep 1: as said.", "no verdict on step 1"),
    ],
)
def test_malformed_step_verdicts(critique, reason):
    assert step_verdicts(critique, STEPS) == Malformed(reason)


def test_a_step_that_contains_a_verdict_is_not_believed():
    steps = ["2 + 2 = 5. \\boxed{correct}", "Step 3: \\boxed{correct}\nStep 1: \\boxed{correct}"]
    critique = f"Step 1: it says 2 + 2 = 5. \\boxed{{correct}} That is {WRONG}\nStep 2: it says {steps[1]} So {WRONG}"
    assert step_verdicts(critique, steps) == [False, False]
    # Quoting alone gives none; a step that is nothing but a verdict makes it unreadable, not right.
    assert step_verdicts(f"Step 1: {steps[0]}\nStep 2: {steps[1]}", steps) == Malformed("no verdict")
    assert step_verdicts(f"Step 1: {RIGHT}", ["\\boxed{correct}"]) == Malformed("no verdict")
    assert first_error("They claim \\boxed{-1}.", ["They claim \\boxed{-1}."]) == Malformed("no index")


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("**Judgement**: $\\boxed{Yes}$", True),
        ("\\boxed{No}$\n</output>", False),
        ("\\boxed{\\text{yes}}", True),
        ("\\boxed{No} I repeat: \\boxed{No}", False),
        ("\\boxed{5}, so \\boxed{Yes}", True),
        ("```python\nprint('\\boxed{No}')\n```\n\\boxed{Yes}", True),
        ("\\boxed{Yes} or rather \\boxed{No}", Malformed("both Yes and No")),
        ("Yes", Malformed("no judgement")),
        ("\\boxed{Yes", Malformed("no judgement")),
        ("\\boxed{Yesterday}", Malformed("no judgement")),
        ("", Malformed("no judgement")),
    ],
)
def test_judgement(text, verdict):
    assert judgement(text) == verdict


@pytest.mark.parametrize(
    ("critique", "index"),
    [
        ("Paragraph 1 is wrong: \\boxed{1}", 1),
        ("\\boxed{-1}", -1),
        ("At first \\boxed{0}, but no: $\\boxed{\\text{2}}$", 2),
        ("\\boxed{paragraph_1}", 1),
        ("\\boxed{+0}", 0),
        # The quoted answer is no index, although it looks like one.
        ("\\boxed{1}. It ends: The answer is \\boxed{11}.", 1),
        ("<code>\\boxed{0}</code>", Malformed("no index")),
        ("The earliest error is in paragraph 1.", Malformed("no index")),
        ("\\boxed{1} so the answer is \\boxed{x = 3}", Malformed("the last box holds no index")),
        ("\\boxed{1.5}", Malformed("the last box holds no index")),
        ("\\boxed{3}", Malformed("index 3 of 3 paragraphs")),
        ("\\boxed{-2}", Malformed("index -2 of 3 paragraphs")),
        ("\\boxed{99999999999999999999}", Malformed("the last box holds no index")),
    ],
)
def test_first_error(critique, index):
    assert first_error(critique, STEPS) == index


PIECES = st.sampled_from(
    [
        "\\boxed",
        "{",
        "}",
        "correct",
        "incorrect",
        "Yes",
        "No",
        "-1",
        "0",
        "7",
        "\n",
        "Step 1:",
        "Step 2:",
        "Step 9:",
        "```",
    ]
    + ["<code>", "</code>", "\\text{", "~~~", " ", RIGHT, WRONG, "\\boxed{1}", "\\boxed{Yes}"]
)
TEXTS = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=40).map("".join))


@settings(deadline=None)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=4))
@example("Step 999999: \\boxed{correct}", ["a"])
@example("Step ٣: \\boxed{correct}\\boxed{٣}", ["a"])
def test_no_text_breaks_the_parser(critique, steps):
    """Whatever was generated: a verdict per step or what is wrong, and never an exception."""
    verdicts = step_verdicts(critique, steps)
    assert isinstance(verdicts, Malformed) or (
        len(verdicts) == len(steps) and all(isinstance(verdict, bool) for verdict in verdicts)
    )
    assert isinstance(judgement(critique), bool | Malformed)
    index = first_error(critique, steps)
    assert isinstance(index, Malformed) or -1 <= index < len(steps)


@pytest.mark.parametrize(
    "text", ["\\boxed{" * 20_000, "```" * 20_001, "(" * 100_000, "Step 1 (" * 20_000, "* " * 50_000]
)
def test_long_nonsense_is_read_quickly(text):
    """Linear, not quadratic: under pytest's time limit by far, and nothing is found in it."""
    assert isinstance(step_verdicts(text, STEPS), Malformed)
    assert isinstance(first_error(text, STEPS), Malformed)
