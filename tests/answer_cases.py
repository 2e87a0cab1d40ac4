r"""The answers of `answer_cases.txt`, one line a reference: `reference :: right | right || wrong | wrong`.

`PHRASINGS` are the ways in which responses state an answer; each answer of the table is stated in several of them.
"""

from pathlib import Path

PHRASINGS = {
    "said": "Some steps.\nThe answer is {}.",
    "boxed": "So we get $\\boxed{{{}}}$.",
    "hashes": "Some steps.\n#### {}",
    "stated": "Answer: {}",
    "bold line": "**Answer: {}**",
    "bold": "Answer: **{}**",
    "bracket display": "The final answer is:\n\\[\n{}\n\\]",
    "dollar display": "The final answer is:\n$$\n{}\n$$",
    "heading": "## Answer\n\n${}$",
    "one line": "Answer: \\[ {} \\]",
    "hope": "Final Answer: The final answer is ${}$. I hope it is correct.",
    "thought": "<think>Is it \\boxed{{0}}?</think>\nThe answer is ${}$.",
    "letter A": "A: {}",
    "therefore": "The answer is therefore {}.",
    "code": "Answer: `{}`",
}
"""Name -> response with a place for the answer."""

TABLE = Path(__file__).with_name("answer_cases.txt")


def cases() -> list[tuple[str, str, bool]]:
    """(reference, answer, whether it is right)."""
    rows = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        reference, _, answers = line.partition(" :: ")
        right, _, wrong = answers.partition(" || ")
        rows += [(reference, answer.strip(), True) for answer in right.split(" | ")]
        rows += [(reference, answer.strip(), False) for answer in wrong.split(" | ")]
    return rows
