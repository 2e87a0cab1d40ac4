"""Dry runs of command lines, one after the other in this process, which imports the hosts once.

Run as a program it reads a JSON list of [module, arguments] from standard input, and writes, as JSON, for each what the
command said where it did not end with exit code 0, "" where it did.
"""

import contextlib
import importlib
import io
import json
import sys
from collections.abc import Sequence

from real_parsers import ROOT

MODULES = {
    "annotate": "annotate",
    "evaluate": "evaluate",
    "rejection-sample": "rejection_sample",
    "train-ppo": "train_ppo_ray",
    "train-prm": "train_prm",
}
"""Command with a dry run -> its module."""


def dry_command(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Module and arguments of a command line that has a dry run and is written out; None for any other."""
    words = list(words)
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if "..." in words or "--help" in words:
        return None
    if words[0] == "openrlhf-prm" and words[1] in MODULES:
        return MODULES[words[1]], words[2:]
    for at, word in enumerate(words):
        module = word.removeprefix("openrlhf_prm.cli.")
        if module != word and module in MODULES.values():
            return module, words[at + 1 :]
    return None


def dry_run(module: str, arguments: Sequence[str]) -> str:
    """What the command says of a fault; nothing where there is none."""
    said = io.StringIO()
    command = importlib.import_module(f"openrlhf_prm.cli.{module}")
    sys.argv = [module, *arguments]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = command.main()
    except SystemExit as ended:
        code = ended.code
    return f"exit code {code}: {said.getvalue().strip()[-2000:]}" if code else ""


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    lines = json.load(sys.stdin)
    print(json.dumps([dry_run(*line) for line in lines]))
