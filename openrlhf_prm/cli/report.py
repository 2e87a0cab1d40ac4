"""Draws a run as one HTML page: `python -m openrlhf_prm.cli.report --run runs/quickstart --output report.html`.

The files it reads are listed in `openrlhf_prm.report.run_folder`. The last line on stdout is a JSON object with the
page's path and size. Exit codes: 0 done, 2 a flag or a file is wrong.
"""

import json
import sys
from pathlib import Path

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.report.page import render_report
from openrlhf_prm.report.run_folder import read_run
from vllm_prm.durable_file import write_atomically


def build_parser() -> FlagParser:
    """The flags of this command."""
    parser = FlagParser(prog="report", description="One self-contained HTML page about a training run.")
    parser.add_argument("--run", required=True, help="run folder with result.json, samples and TensorBoard event files")
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
    try:
        run = read_run(Path(args.run))
    except ValueError as error:
        parser.error(f"--run: {error}")
    page = render_report(run)
    write_atomically(output, page)
    print(json.dumps({"output": str(output), "bytes": len(page.encode()), "missing": run.missing}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
