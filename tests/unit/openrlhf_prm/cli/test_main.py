"""The console script: one table of commands, each imported when it is called."""

import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf_prm.cli.main import COMMANDS, main, parse

CLI = Path(__file__).parents[4] / "openrlhf_prm" / "cli"


def run(monkeypatch, *arguments: str) -> int | None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/openrlhf-prm", *arguments])
    return main()


def test_every_module_with_a_command_is_in_the_table():
    modules = {file.stem for file in CLI.glob("*.py") if 'if __name__ == "__main__":' in file.read_text()}
    reached_otherwise = {"main", "evaluate_prm"}  # evaluate_prm by `evaluate --benchmark`
    assert {command.module for command in COMMANDS.values()} == modules - reached_otherwise


def test_help_lists_the_commands_with_a_line_each(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for name, command in COMMANDS.items():
        assert sum(line.startswith(f"{name} ") and line.endswith(command.does) for line in lines) == 1


@pytest.mark.parametrize(
    "arguments, error",
    [
        ([], "a command is missing"),
        (["annotat"], "no command 'annotat'"),
        (["--annotator", "adaptive"], "no command '--annotator'"),
        (["convert"], "convert takes steps or gguf, got nothing"),
        (["convert", "--input"], "convert takes steps or gguf, got --input"),
    ],
)
def test_an_unknown_command_is_one_line(monkeypatch, capsys, arguments, error):
    assert run(monkeypatch, *arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"openrlhf-prm: error: {error}")


def test_what_follows_a_command_is_the_commands():
    assert parse(["report", "--run", "report"]) == ("report", ["--run", "report"])
    assert parse(["convert", "gguf", "--input", "steps"]) == ("convert gguf", ["--input", "steps"])


# The host's help is another matter (tests/stack/test_ppo.py): it imports the host.
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "train-ppo"])
def test_help_of_a_command_names_it_as_it_was_called(monkeypatch, capsys, name):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, *name.split(), "--help")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: openrlhf-prm {name} ")


@pytest.mark.parametrize("called", [["openrlhf_prm.cli.main", "report"], ["openrlhf_prm.cli.report"]])
def test_errors_name_the_command_as_it_was_called(called):
    command = [sys.executable, "-m", *called, "--run", "/no/such/run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    program = "openrlhf-prm report" if len(called) == 2 else "python -m openrlhf_prm.cli.report"
    assert done.returncode == 2
    assert done.stderr == f"{program}: error: --run: no such folder: /no/such/run (--help lists the flags)\n"


def test_evaluate_reaches_its_benchmarks(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        run(monkeypatch, "evaluate", "--benchmark", "processbench", "--help")
    assert end.value.code == 0
    assert "--eval.threshold" in capsys.readouterr().out
