"""Draws a sample of annotated questions: `python -m openrlhf_prm.cli.view_labels --input labels.jsonl`.

Reads step labels (schema: `openrlhf_prm.annotation.records`; JSONL or Parquet) and writes one HTML page with the tree
of each chosen question. The last line on stdout is a JSON object with the page's path and size. Exit codes: 0 done, 2 a
flag or a row is wrong.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.data.rows import read_rows
from openrlhf_prm.report.trees import render_trees, sample_questions
from vllm_prm.durable_file import write_atomically

PER_STEP = ("mc_values", "hard_labels", "right", "rollouts", "visits")
KEYS = ("id", "question", "label", "root", "steps", "correct", *PER_STEP)


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="view_labels", description="One self-contained HTML page of annotated questions' trees.")
    parser.add_argument("--input", required=True, help="step labels, JSONL or Parquet")
    parser.add_argument("--output", default="labels.html", help="HTML file to write")
    parser.add_argument("--questions", type=int, default=20, help="questions to draw, chosen by hash")
    parser.add_argument("--seed", type=int, default=0, help="another seed chooses other questions")
    return parser


def checked(path: str) -> Iterator[dict]:
    """The file's rows. Raises ValueError naming the row that is no step-label record."""
    for number, row in read_rows(path):
        if missing := [key for key in KEYS if key not in row]:
            raise ValueError(f"{path} line {number}: not a step-label record, it has no {missing[0]!r}")
        yield row


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    output = Path(args.output)
    if args.questions < 1:
        parser.error(f"--questions must be at least 1, got {args.questions}")
    if not Path(args.input).is_file():
        parser.error(f"--input: no such file: {args.input}")
    if output.is_dir():
        parser.error(f"--output: {args.output} is a folder, not a file")
    try:
        questions, totals = sample_questions(checked(args.input), args.questions, args.seed)
    except ValueError as error:
        parser.error(f"--input: {error}")
    if not questions:
        parser.error(f"--input: {args.input} holds no step label")
    page = render_trees(Path(args.input).name, questions, totals)
    write_atomically(output, page)
    print(json.dumps({"output": str(output), "bytes": len(page.encode()), "questions": len(questions)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
