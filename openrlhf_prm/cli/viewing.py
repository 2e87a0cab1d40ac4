"""What the commands that draw a sample of a file share: flags, checks, and the page."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrlhf_prm.cli.parser import FlagParser
from openrlhf_prm.data.rows import read_rows
from vllm_prm.durable_file import write_atomically


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """A command that draws some entries of a file. `keys`: what every row has. `row`: what one is called. `sample`
    chooses entries of rows, with totals; `render` makes the page of a name, entries and totals.
    """

    prog: str
    description: str
    source: str
    entries: str
    output: str
    row: str
    keys: Sequence[str]
    sample: Callable[[Iterator[dict], int, int], tuple[list, Any]]
    render: Callable[[str, list, Any], str]

    def parser(self) -> FlagParser:
        """The flags of the command."""
        parser = FlagParser(prog=self.prog, description=self.description)
        parser.add_argument("--input", required=True, help=f"{self.source}, JSONL or Parquet")
        parser.add_argument("--output", default=self.output, help="HTML file to write")
        parser.add_argument(f"--{self.entries}", type=int, default=20, help=f"{self.entries} to draw, chosen by hash")
        parser.add_argument("--seed", type=int, default=0, help=f"another seed chooses other {self.entries}")
        return parser

    def checked(self, path: str) -> Iterator[dict]:
        """The file's rows. Raises ValueError naming the row that is none of them."""
        for number, row in read_rows(path):
            if missing := [key for key in self.keys if key not in row]:
                raise ValueError(f"{path} line {number}: not {self.row}, it has no {missing[0]!r}")
            yield row

    def run(self, argv: list[str] | None) -> int:
        """Runs the command; returns its exit code."""
        parser = self.parser()
        args = vars(parser.parse_args(argv))
        output, count = Path(args["output"]), args[self.entries]
        if count < 1:
            parser.error(f"--{self.entries} must be at least 1, got {count}")
        if not Path(args["input"]).is_file():
            parser.error(f"--input: no such file: {args['input']}")
        if output.is_dir():
            parser.error(f"--output: {output} is a folder, not a file")
        try:
            shown, totals = self.sample(self.checked(args["input"]), count, args["seed"])
        except ValueError as error:
            parser.error(f"--input: {error}")
        if not shown:
            parser.error(f"--input: {args['input']} holds no {self.source.removesuffix('s')}")
        page = self.render(Path(args["input"]).name, shown, totals)
        write_atomically(output, page)
        print(json.dumps({"output": str(output), "bytes": len(page.encode()), self.entries: len(shown)}))
        return 0
