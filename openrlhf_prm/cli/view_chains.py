"""Draws a sample of long chains: `python -m openrlhf_prm.cli.view_chains --input chains.jsonl`.

Reads chains of `openrlhf-prm generate`, kept or rejected ones (schema: `openrlhf_prm.generation.chains.rows`), and
writes one HTML page: the parts of each chain by kind, the tree of its steps beside it. The last line on stdout is a
JSON object with the page's path and size. Exit codes: 0 done, 2 a flag or a row is wrong.
"""

import sys

from openrlhf_prm.cli.viewing import Viewer
from openrlhf_prm.report.chains import render_chains, sample_chains

VIEWER = Viewer(
    prog="view_chains",
    description="One self-contained HTML page of long chains and their trees.",
    source="chains",
    entries="chains",
    output="chains.html",
    row="a chain",
    keys=("id", "question", "label", "events", "chain", "tokens", "shortcut_tokens", "calls", "completion_tokens"),
    sample=sample_chains,
    render=render_chains,
)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return VIEWER.run(argv)


if __name__ == "__main__":
    sys.exit(main())
