"""How well step splitters find published steps again: `python -m benchmarks.splitters --data DIR`.

`DIR` holds `processbench/*.json`. Each solution's steps are joined by blank lines, and by line ends, and split again:

  exact   share of solutions whose steps come back as they were
  f1      of the places where steps end, white space apart
  bare    pieces that are a delimiter alone

and on the reference solutions of `math500/test500.jsonl`, where no steps are published, pieces that break a display and
bare ones. The last line is one JSON object.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from openrlhf_prm.evaluation.versions import versions
from vllm_prm.durable_file import write_atomically
from vllm_prm.splitters import STEP_SPLITTERS, split_text

JOINTS = {"blank lines": "\n\n", "lines": "\n"}
_BARE = re.compile(r"\s*(?:\\[\[\]()]|\$\$?|`{3,}\w*|\\(?:begin|end)\{\w+\*?\}|\.)\s*")


def step_ends(steps: Sequence[str]) -> set[int]:
    """Where steps end within their text, white space apart; the last end is left out."""
    text, ends = "", set()
    for step in steps[:-1]:
        text += step
        ends.add(len(text.rstrip()))
    return ends


def measure(solutions: Sequence[Sequence[str]], joint: str, splitter: str) -> dict[str, float]:
    """The figures of one splitter on solutions of published steps."""
    exact = hits = split = published = bare = 0
    for steps in solutions:
        pieces = split_text(joint.join(steps), splitter)
        ends, wanted = step_ends(pieces), step_ends([step + joint for step in steps])
        exact += ends == wanted
        hits, split, published = hits + len(ends & wanted), split + len(ends), published + len(wanted)
        bare += sum(bool(_BARE.fullmatch(piece)) for piece in pieces)
    f1 = 2 * hits / (split + published)
    return {"exact": round(exact / len(solutions), 4), "f1": round(f1, 4), "bare": bare, "solutions": len(solutions)}


def broken(texts: Sequence[str], splitter: str) -> dict[str, int]:
    """Pieces, those with an odd display, and bare ones."""
    pieces = [piece for text in texts for piece in split_text(text, splitter)]
    odd = sum(piece.count("$$") % 2 == 1 or piece.count(r"\[") != piece.count(r"\]") for piece in pieces)
    return {"pieces": len(pieces), "broken": odd, "bare": sum(bool(_BARE.fullmatch(piece)) for piece in pieces)}


def main() -> int:
    """Measures, writes `--output`, prints the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="folder with processbench/ and math500/")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/splitters.json"), help="JSON to write")
    args = parser.parse_args()
    files = sorted((args.data / "processbench").glob("*.json"))
    references = args.data / "math500/test500.jsonl"
    if not files or not references.is_file():
        parser.error(f"--data: {args.data} needs processbench/*.json and math500/test500.jsonl")
    figures: dict[str, dict] = {}
    for file in files:
        solutions = [row["steps"] for row in json.loads(file.read_text(encoding="utf-8"))]
        for joint, text in JOINTS.items():
            for splitter in STEP_SPLITTERS:
                figures[f"{file.stem}, joined by {joint}, {splitter}"] = row = measure(solutions, text, splitter)
                print(f"{file.stem:8} {joint:12} {splitter:12} {row}", flush=True)
    texts = [json.loads(line)["solution"] for line in references.read_text(encoding="utf-8").splitlines()]
    for splitter in STEP_SPLITTERS:
        figures[f"math500 references, {splitter}"] = broken(texts, splitter)
        print(f"math500 references {splitter:12} {figures[f'math500 references, {splitter}']}", flush=True)
    result = {"figures": figures, "command": "python -m benchmarks.splitters", "versions": versions()}
    write_atomically(args.output, json.dumps(result, indent=2) + "\n")
    print(json.dumps({name: row for name, row in figures.items() if name.endswith("auto")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
