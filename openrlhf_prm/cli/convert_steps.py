"""Public data -> the project's rows, and step labels -> other trainers' rows:
`python -m openrlhf_prm.cli.convert_steps --format prmbench ...`.

Public data: `prmbench`, `gsm8k`, `reasoning_gym` (`openrlhf_prm.convert.public_data`). The other way, step labels of
`openrlhf_prm.cli.annotate` become what other trainers read: `trl`, `openrlhf`, `math_shepherd`
(`openrlhf_prm.data.formats_out`), and `records`, the labels as they are. A file name that ends in `.parquet` is Parquet
on either side; `datasets` reads all of them.

Public data is written in the order of a hash, so that the first N rows are a sample of all; labels keep their order.
With `--heldout` a share of the problems, chosen by hash too, goes there with all their rows; PRMBench's problems are
told apart by `idx`, because the files word the same question differently. Rows that repeat one another are written
once. Rows that cannot be used are left out and named on stderr, or stop the command under `--strict`. The last line on
stdout is a JSON summary. Exit code 2: a flag, a file or a row is wrong.
"""

import json
import sys
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.convert.public_data import PUBLIC_FORMATS
from openrlhf_prm.convert.row_files import convert, split_by_problem, write_rows
from openrlhf_prm.data.formats_out import LABEL_FORMATS, LabelStyle


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="convert_steps", description="Convert public data, or step labels, into other rows.")
    add = parser.add_argument
    known = f"what the input is ({', '.join(PUBLIC_FORMATS)}), or what step labels become ({', '.join(LABEL_FORMATS)})"
    add("--format", required=True, choices=[*PUBLIC_FORMATS, *LABEL_FORMATS], help=known)
    add("--input", required=True, nargs="+", help="JSONL or Parquet files")
    add("--output", required=True, help="JSONL or Parquet file to write")
    add("--heldout", help="JSONL or Parquet file for the rows of held-out problems")
    add("--labels", default="hard", choices=["hard", "soft"], help="which of the step labels")
    add("--placeholder_token", default=LabelStyle.placeholder_token, help="openrlhf: token after each step")
    add("--reward_tokens", nargs=2, default=LabelStyle.reward_tokens, help="openrlhf: labels, the good one first")
    add("--step_separator", default=LabelStyle.step_separator, help="openrlhf: text between step and placeholder")
    add("--task", default=LabelStyle.task, help="math_shepherd: the value of its key task")
    add("--heldout_share", type=float, default=0.1, help="share of the problems that is held out, with --heldout")
    add("--max_rows", type=int, help="write the first N rows only to --output")
    add("--max_heldout_rows", type=int, help="write the first N rows only to --heldout")
    add("--strict", action="store_true", help="stop at a row that cannot be used")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if not 0 < args.heldout_share < 1:
        parser.error(f"--heldout_share must be between 0 and 1, got {args.heldout_share}")
    for flag, limit in (("--max_rows", args.max_rows), ("--max_heldout_rows", args.max_heldout_rows)):
        if limit is not None and limit < 1:
            parser.error(f"{flag} must be at least 1, got {limit}")
    for path in args.input:
        if not Path(path).is_file():
            parser.error(f"--input: no such file: {path}")
    try:
        style = LabelStyle(
            soft=args.labels == "soft",
            placeholder_token=args.placeholder_token,
            reward_tokens=tuple(args.reward_tokens),
            step_separator=args.step_separator,
            task=args.task,
        )
        rows, faults = convert(args.input, args.format, args.strict, style)
    except ValueError as error:
        parser.error(f"--input: {error}")
    for fault in faults:
        print(f"convert_steps: left out {fault}", file=sys.stderr)
    targets, parts = [(args.output, args.max_rows)], [[row for _, row in rows]]
    if args.heldout:
        targets.append((args.heldout, args.max_heldout_rows))
        parts = split_by_problem(rows, args.heldout_share)
    written = {}
    for (path, limit), part in zip(targets, parts, strict=True):
        part = part[:limit]
        if not part:
            parser.error(f"nothing to write to {path}: {len(rows)} usable rows in all")
        write_rows(Path(path), part)
        written[path] = len(part)
    print(json.dumps({"rows": written, "left_out": len(faults)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
