"""Step-label records (`records`) -> the data formats of other PRM trainers. One function and one line each.

trl            {"prompt": question, "completions": [step, ...], "labels": [true, ...]}
               stepwise supervision of TRL's PRMTrainer.
openrlhf       {"input": "question\\nstep<sep><placeholder>\\n...", "label": ["+", ...] or [0.5, ...]}
               OpenRLHF <= 0.9.5 `train_prm` with `--input_key input --label_key label`; soft labels crashed there.
math_shepherd  {"input": "question Step 1: ... ки\\nStep 2: ... ки", "label": the same with + and - for ки, "task"}
               the published data set's form (arXiv:2312.08935); hard labels.
records        the record itself, for Parquet.

A label may be null where the step has none. `records` keeps it; in `openrlhf` and `math_shepherd` such a step has no
placeholder, so that it runs on into the next one and is not scored; `trl` has no way to say it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vllm_prm.families.math_shepherd import TAG

_NUMBERED = re.compile(r"Step \d+:")


@dataclass(frozen=True, kw_only=True)
class LabelStyle:
    """How labels are written. `soft`: numbers instead of verdicts, for formats that know them. `placeholder_token`,
    `reward_tokens` (positive first) and `step_separator` are `openrlhf`'s, `task` is `math_shepherd`'s.
    """

    soft: bool = False
    placeholder_token: str = TAG
    reward_tokens: tuple[str, str] = ("+", "-")
    step_separator: str = " "
    task: str = "MATH"


def trl_row(record: dict, style: LabelStyle) -> dict:
    """Raises ValueError for soft labels and for a step without a label, which TRL does not know."""
    _hard_only("trl", style)
    if None in record["hard_labels"]:
        step = record["hard_labels"].index(None) + 1
        raise ValueError(f"step {step} has no label, which trl cannot say; records and openrlhf can")
    return {
        "prompt": record["question"],
        "completions": record["steps"],
        "labels": [bool(label) for label in record["hard_labels"]],
    }


def openrlhf_row(record: dict, style: LabelStyle) -> dict:
    """Raises ValueError where a text contains the placeholder, which would then stand there once too often."""
    _without(style.placeholder_token, record)
    labels = record["soft_labels" if style.soft else "hard_labels"]
    tag = f"{style.step_separator}{style.placeholder_token}"
    steps = [step if label is None else step + tag for step, label in zip(record["steps"], labels, strict=True)]
    good, bad = style.reward_tokens
    known = [label for label in labels if label is not None]
    return {
        "input": "\n".join([record["question"].rstrip("\n"), *steps]),
        "label": known if style.soft else [good if label else bad for label in known],
    }


def math_shepherd_row(record: dict, style: LabelStyle) -> dict:
    """Raises ValueError for soft labels, and where a text contains the tag."""
    _hard_only("math_shepherd", style)
    _without(TAG, record)
    steps = [
        step if _NUMBERED.match(step) else f"Step {number}: {step}" for number, step in enumerate(record["steps"], 1)
    ]
    question = record["question"].rstrip()

    def text(tags: Mapping[float, str]) -> str:
        labelled = zip(steps, record["hard_labels"], strict=True)
        return f"{question} " + "\n".join(
            step if label is None else f"{step} {tags[label]}" for step, label in labelled
        )

    return {"input": text({0: TAG, 1: TAG}), "label": text({0: "-", 1: "+"}), "task": style.task}


def record_row(record: dict, style: LabelStyle) -> dict:
    """The record as it is."""
    return record


LABEL_FORMATS: dict[str, Callable[[dict, LabelStyle], dict]] = {
    "trl": trl_row,
    "openrlhf": openrlhf_row,
    "math_shepherd": math_shepherd_row,
    "records": record_row,
}
"""Name of a format -> function from a checked record."""


def label_rows(form: str, record: dict, style: LabelStyle) -> list[tuple[str, dict]]:
    """[(question, row)] of a record with steps. Raises ValueError saying what is wrong with it."""
    steps = record.get("steps")
    if not isinstance(record.get("question"), str) or not isinstance(steps, list):
        raise ValueError("not a step-label record: it needs 'question' and 'steps'")
    if not steps:
        raise ValueError("the solution has no steps")
    key = "soft_labels" if style.soft else "hard_labels"
    if not isinstance(record.get(key), list) or len(record[key]) != len(steps):
        raise ValueError(f"{key!r} must have one entry for each of the {len(steps)} steps")
    if all(label is None for label in record[key]):
        raise ValueError(f"{key!r} has no label at all")
    for number, label in enumerate(record[key], start=1):
        _require_label(key, number, label, style)
    return [(record["question"], LABEL_FORMATS[form](record, style))]


def _require_label(key: str, number: int, label: object, style: LabelStyle) -> None:
    """A label must say what `train_prm` would learn from it: nothing is taken for right or wrong that says neither."""
    allowed = "a number in [0, 1] or null" if style.soft else "0 or 1, true or false, or null"
    known = isinstance(label, int | float) and (0 <= label <= 1 if style.soft else label in (0, 1))
    known = known or label is None
    if not known:
        raise ValueError(f"{key!r} of step {number} must be {allowed}, got {label!r}")


def _hard_only(form: str, style: LabelStyle) -> None:
    if style.soft:
        raise ValueError(f"{form} knows hard labels only")


def _without(tag: str, record: dict) -> None:
    if any(tag in text for text in (record["question"], *record["steps"])):
        raise ValueError(f"the placeholder {tag!r} stands in the text itself")
