"""`openrlhf-prm COMMAND ...`: the short form of `python -m openrlhf_prm.cli.MODULE ...`.

A command is imported when it is called, so that `--help` and a mistyped command answer at once.
"""

import importlib
import os
import sys
from typing import NamedTuple


class Command(NamedTuple):
    """A command: the module of `openrlhf_prm.cli` whose `main()` runs it, and what it does."""

    module: str
    does: str


COMMANDS = {
    "annotate": Command("annotate", "label the steps of a policy's solutions by rollouts"),
    "train-prm": Command("train_prm", "train a process reward model on labelled steps"),
    "train-ppo": Command("train_ppo_ray", "OpenRLHF's PPO, guided by a process reward model"),
    "evaluate": Command("evaluate", "measure policies, or a process reward model with --benchmark"),
    "rejection-sample": Command("rejection_sample", "write a policy's best right answers as data for fine-tuning"),
    "generate": Command("generate", "write long chains of thought with several roles, as data for fine-tuning"),
    "convert steps": Command("convert_steps", "turn public data or step labels into other formats"),
    "convert gguf": Command("convert_gguf", "turn a GGUF file into a Hugging Face checkpoint"),
    "report": Command("report", "draw a training run as one HTML page"),
    "view-labels": Command("view_labels", "draw labelled solutions as one HTML page"),
    "view-chains": Command("view_chains", "draw long chains of thought as one HTML page"),
    "doctor": Command("doctor", "say what this machine and its Ray cluster can run, and what stands against it"),
    "patch": Command("patch", "patch the installed OpenRLHF to run on CPUs, or take the patches back"),
}


def usage() -> str:
    """What `--help` prints: every command with what it does."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.does}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: openrlhf-prm COMMAND ...", "", *lines, "", "openrlhf-prm COMMAND --help lists the flags of a command"]
    )


def parse(arguments: list[str]) -> tuple[str, list[str]]:
    """The command's name, of one word or two, and its own arguments. Raises ValueError for an unknown command."""
    if not arguments:
        raise ValueError(f"a command is missing: {', '.join(COMMANDS)}")
    for words in (1, 2):
        name = " ".join(arguments[:words])
        if name in COMMANDS:
            return name, arguments[words:]
    forms = [name.split()[1] for name in COMMANDS if name.startswith(f"{arguments[0]} ")]
    if forms:
        raise ValueError(f"{arguments[0]} takes {' or '.join(forms)}, got {' '.join(arguments[1:2]) or 'nothing'}")
    raise ValueError(f"no command {arguments[0]!r}: {', '.join(COMMANDS)}")


def main() -> int | None:
    """Runs the command that `sys.argv` names; returns its exit code, 2 where there is no such command."""
    if sys.argv[1:2] in (["--help"], ["-h"]) or sys.argv[1:] in (["convert", "--help"], ["convert", "-h"]):
        print(usage())
        return 0
    try:
        name, rest = parse(sys.argv[1:])
    except ValueError as error:
        print(f"openrlhf-prm: error: {error} (--help describes them)", file=sys.stderr)
        return 2
    # The commands, and the host's among them, read `sys.argv` as if called directly; its folder is what Ray looks at.
    sys.argv = [os.path.join(os.path.dirname(sys.argv[0]), f"openrlhf-prm {name}"), *rest]
    return importlib.import_module(f"openrlhf_prm.cli.{COMMANDS[name].module}").main()


if __name__ == "__main__":
    sys.exit(main())
