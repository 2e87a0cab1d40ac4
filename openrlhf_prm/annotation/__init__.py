"""Annotators: the policy's own solutions -> step labels, without people. One file and one line each.

An annotator has a keyword-only dataclass `Options` of what its labels depend on, is built as
`Annotator(pool, tokenizer, is_correct, options)`, and answers `await annotate(prompt, label)` with the labelled
solutions of one question; `usage` counts what it decoded.
"""

from openrlhf_prm.annotation.math_shepherd import MathShepherd
from openrlhf_prm.annotation.records import LabelFile, LabelledSolution, Question, read_questions

ANNOTATORS: dict[str, type] = {
    "math_shepherd": MathShepherd,
}
"""Name of an annotator -> class."""

__all__ = ["ANNOTATORS", "LabelFile", "LabelledSolution", "MathShepherd", "Question", "read_questions"]
