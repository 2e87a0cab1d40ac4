"""Draws a sample of annotated questions: `python -m openrlhf_prm.cli.view_labels --input labels.jsonl`.

Reads step labels (schema: `openrlhf_prm.annotation.records`; JSONL or Parquet) and writes one HTML page with the tree
of each chosen question. The last line on stdout is a JSON object with the page's path and size. Exit codes: 0 done, 2 a
flag or a row is wrong.
"""

import sys

from openrlhf_prm.cli.viewing import Viewer
from openrlhf_prm.report.trees import render_trees, sample_questions

PER_STEP = ("mc_values", "hard_labels", "right", "rollouts", "visits")
VIEWER = Viewer(
    prog="view_labels",
    description="One self-contained HTML page of annotated questions' trees.",
    source="step labels",
    entries="questions",
    output="labels.html",
    row="a step-label record",
    keys=("id", "question", "label", "root", "steps", "correct", *PER_STEP),
    sample=sample_questions,
    render=render_trees,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return VIEWER.run(argv)


if __name__ == "__main__":
    sys.exit(main())
