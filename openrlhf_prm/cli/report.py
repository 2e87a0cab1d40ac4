"""Draws a run as one HTML page: `python -m openrlhf_prm.cli.report --run runs/quickstart --output report.html`.

The files it reads are listed in `openrlhf_prm.report.run_folder`. A run that goes on needs none but its TensorBoard
events; `--watch 60` writes the page again every minute until the run's result.json is there, or Ctrl-C. The last line
on stdout is a JSON object with the page's path and size. Exit codes: 0 done, 2 a flag or a file is wrong.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.report.page import render_report
from openrlhf_prm.report.run_folder import RunFolder, read_run
from vllm_prm.durable_file import write_atomically


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="report", description="One self-contained HTML page about a training run.")
    parser.add_argument("--run", required=True, help="run folder with result.json, samples and TensorBoard event files")
    parser.add_argument(
        "--watch", type=int, metavar="SECONDS", help="write the page anew every so many seconds while the run goes on"
    )
    parser.add_argument("--output", default="report.html", help="HTML file to write")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    output = Path(args.output)
    if not Path(args.run).is_dir():
        parser.error(f"--run: no such folder: {args.run}")
    if output.is_dir():
        parser.error(f"--output: {args.output} is a folder, not a file")
    if args.watch is not None and args.watch < 1:
        parser.error(f"--watch: must be at least 1, got {args.watch}")
    run, page = _write(parser, args, output)
    try:
        while args.watch and not run.result:
            time.sleep(args.watch)
            run, page = _write(parser, args, output)
    except KeyboardInterrupt:
        print("report: the page is not written again", file=sys.stderr)
    print(json.dumps({"output": str(output), "bytes": len(page.encode()), "missing": run.missing}))
    return 0


def _write(parser: FlagParser, args: argparse.Namespace, output: Path) -> tuple[RunFolder, str]:
    """Reads the run and writes the page."""
    try:
        run = read_run(Path(args.run))
    except ValueError as error:
        parser.error(f"--run: {error}")
    page = render_report(run, reload_s=None if run.result else args.watch)
    write_atomically(output, page)
    return run, page


if __name__ == "__main__":
    sys.exit(main())
