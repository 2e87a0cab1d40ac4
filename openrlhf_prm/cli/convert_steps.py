"""Public data -> the project's rows, and step labels -> other trainers' rows:
`python -m openrlhf_prm.cli.convert_steps --format prmbench ...`.

`prmbench` (PRMBench, arXiv:2501.03124) holds a worked solution (`original_process`) and a copy with errors put in
(`modified_process`), each with its question. Both become step-label rows for `train_prm`:

    {"question", "steps", "hard_labels"}     label 0 for the steps that `error_steps` lists (from 1), 1 for all others

which is the benchmark's published meaning: every step is judged by itself, so a step after an error is wrong only where
it is listed too. The original solution counts as right throughout. Rows that repeat one another are written once.

`gsm8k` (arXiv:2110.14168) becomes question rows `{"question", "label"}`, the label being what follows `####`; so do
the rows of `reasoning_gym` (arXiv:2505.24760), the label being the whole row as JSON, which
`--answers.checker reasoning_gym` wants.

The other way, step labels of `openrlhf_prm.cli.annotate` become what other trainers read: `--format trl`, `openrlhf` or
`math_shepherd` (`openrlhf_prm.data.formats_out`), and `records`, the labels as they are. A file name that ends in
`.parquet` is Parquet on either side; `datasets` reads all of them.

Public data is written in the order of a hash, so that the first N rows are a sample of all; labels keep their order.
With `--heldout` a share of the problems, chosen by hash too, goes there with all their rows; PRMBench's problems are
told apart by `idx`, because the files word the same question differently. Rows that cannot be used are left out and
named on stderr, or stop the command under `--strict`. The last line on stdout is a JSON summary. Exit code 2: a flag, a
file or a row is wrong.
"""

import functools
import hashlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from openrlhf_prm.answers.checkers import reasoning_gym_answer
from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.data.files import write_atomically
from openrlhf_prm.data.formats_out import LABEL_FORMATS, LabelStyle, label_rows
from openrlhf_prm.data.rows import read_rows


def prmbench_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, step-label row) of the original and of the modified solution; both belong to the group of the original
    question.

    Raises ValueError saying what is wrong with the row.
    """
    for key in ("idx", "original_question", "modified_question"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            raise ValueError(f"{key!r} must be a text")
    for key in ("original_process", "modified_process"):
        steps = row.get(key)
        if not isinstance(steps, list) or not steps or not all(isinstance(s, str) and s.strip() for s in steps):
            raise ValueError(f"{key!r} must be a list of texts")
    original, modified, errors = row["original_process"], row["modified_process"], row.get("error_steps")
    if not isinstance(errors, list) or not all(type(error) is int for error in errors):
        raise ValueError("'error_steps' must be a list of whole numbers")
    if not errors:
        raise ValueError("'error_steps' is empty")
    outside = [error for error in errors if not 1 <= error <= len(modified)]
    if outside:
        raise ValueError(f"'error_steps' {outside} is not among the steps 1 to {len(modified)}")
    if original == modified and row["original_question"] == row["modified_question"]:
        raise ValueError("'modified_process' is the same as 'original_process'")
    labels = [int(number not in errors) for number in range(1, len(modified) + 1)]
    right = {"question": row["original_question"], "steps": original, "hard_labels": [1] * len(original)}
    wrong = {"question": row["modified_question"], "steps": modified, "hard_labels": labels}
    return [(row["idx"], right), (row["idx"], wrong)]


def gsm8k_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, question row) of a row whose `answer` ends in `#### 72`. Raises ValueError saying what is wrong with
    it.
    """
    question, answer = row.get("question"), row.get("answer")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("'question' must be a text")
    if not isinstance(answer, str) or "####" not in answer:
        raise ValueError("'answer' must be a text that ends in '#### <number>'")
    label = answer.rpartition("####")[2].strip()
    if not label:
        raise ValueError("'answer' has nothing after '####'")
    return [(question, {"question": question, "label": label})]


def reasoning_gym_rows(row: dict) -> list[tuple[str, dict]]:
    """(group, question row) of one of reasoning-gym's rows. Raises ValueError where its verifier could not judge it."""
    question = row.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ValueError("'question' must be a text")
    label = json.dumps({key: row.get(key) for key in ("question", "answer", "metadata")})
    reasoning_gym_answer("", label)
    return [(question, {"question": question, "label": label})]


FORMATS: dict[str, Callable[[dict], list[tuple[str, dict]]]] = {
    "prmbench": prmbench_rows,
    "gsm8k": gsm8k_rows,
    "reasoning_gym": reasoning_gym_rows,
}


def convert(
    paths: Sequence[str], form: str, strict: bool = False, style: LabelStyle | None = None
) -> tuple[list[tuple[str, dict]], list[str]]:
    """The (group, row) pairs of all files without repetitions, and the faults of rows left out.

    Raises ValueError naming file and line: for what is not JSON always, for a row that cannot be used under `strict`.
    """
    style = style or LabelStyle()
    rows_of = FORMATS[form] if form in FORMATS else functools.partial(label_rows, form, style=style)
    found: dict[str, tuple[str, dict]] = {}
    faults: list[str] = []
    for path in paths:
        for number, row in read_rows(path):
            try:
                rows = rows_of(row)
            except ValueError as error:
                if strict:
                    raise ValueError(f"{path} line {number}: {error}") from None
                faults.append(f"{path} line {number}: {error}")
                continue
            for group, made in rows:
                found.setdefault(_hash(json.dumps(made)), (group, made))
    return [found[key] for key in (sorted(found) if form in FORMATS else found)], faults


def split(rows: Sequence[tuple[str, dict]], heldout_share: float) -> Iterator[list[dict]]:
    """The rows for training and those held out: a group is held out where its hash, as a number in [0, 1), is below
    the share.
    """
    held = [int(_hash(problem), 16) / 16**64 < heldout_share for problem, _ in rows]
    for side in (False, True):
        yield [row for (_, row), out in zip(rows, held, strict=True) if out is side]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """Writes Parquet where the name ends so, else JSONL; the file appears whole or not at all."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        content = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), content)
        write_atomically(path, content.getvalue())
    else:
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="convert_steps", description="Convert public data, or step labels, into other rows.")
    add = parser.add_argument
    known = f"what the input is ({', '.join(FORMATS)}), or what step labels become ({', '.join(LABEL_FORMATS)})"
    add("--format", required=True, choices=[*FORMATS, *LABEL_FORMATS], help=known)
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
        parts = split(rows, args.heldout_share)
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
