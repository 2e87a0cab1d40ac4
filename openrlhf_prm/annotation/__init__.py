"""Annotators: the policy's own solutions -> step labels, without people. One file and one line each.

An annotator has a keyword-only dataclass `Options` of what its labels depend on, is built as
`Annotator(engine, tokenizer, is_correct, options)`, and answers `await annotate(prompt, label)` with the
`AnnotatedQuestion` of one question.
"""

from openrlhf_prm.annotation.adaptive import Adaptive
from openrlhf_prm.annotation.label_file import LabelFile
from openrlhf_prm.annotation.math_shepherd import MathShepherd
from openrlhf_prm.annotation.omega_prm import OmegaPRM
from openrlhf_prm.annotation.records import AnnotatedQuestion, LabelledSolution

ANNOTATORS: dict[str, type] = {
    "adaptive": Adaptive,
    "math_shepherd": MathShepherd,
    "omega_prm": OmegaPRM,
}
"""Name of an annotator -> class."""

__all__ = ["ANNOTATORS", "AnnotatedQuestion", "LabelFile", "LabelledSolution"]
