"""What a command's own parser says of a command line, while nothing is started.

Run as a program it reads a JSON list of command lines from standard input and writes, as JSON, `verdicts`, "" where a
line is right, and `flags`, every flag there is: the hosts' modules are imported there, and may leave traces.
"""

import argparse
import contextlib
import importlib
import io
import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
LEFT_ALONE = {".", "cd", "curl", "docker", "echo", "export", "git", "kubectl", "python", "python3", "sudo"}
"""Programs of other people whose arguments are not looked at, `python -c` among them."""


class Parsed(BaseException):
    """Ends a command whose arguments were parsed."""

    def __init__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, rest: Sequence[str]):
        self.parser, self.namespace, self.rest = parser, namespace, rest


@contextlib.contextmanager
def ending(method: str) -> Iterator[None]:
    """Within the block a parser's `method` raises Parsed when it has parsed."""
    kept = getattr(argparse.ArgumentParser, method)

    def parse(parser, *arguments, **options):
        setattr(argparse.ArgumentParser, method, kept)  # subcommands' parsers are called with the same method
        parsed = kept(parser, *arguments, **options)
        raise Parsed(parser, *(parsed if method == "parse_known_args" else (parsed, [])))

    setattr(argparse.ArgumentParser, method, parse)
    try:
        yield
    finally:
        setattr(argparse.ArgumentParser, method, kept)


def parse(
    run: Callable[[], object], program: str, arguments: Sequence[str], method: str = "parse_args"
) -> Parsed | None:
    """What the command that `run` starts makes of its arguments, by its first call of a parser's `method`; None
    where it only prints its help. Raises ValueError with its words where it refuses them.
    """
    kept, said = sys.argv, io.StringIO()
    sys.argv = [program, *arguments]
    try:
        with ending(method), contextlib.redirect_stderr(said):
            run()
    except Parsed as parsed:
        return parsed
    except SystemExit as ended:
        if ended.code:
            raise ValueError(said.getvalue().strip().splitlines()[-1]) from None
        return None  # --help
    finally:
        sys.argv = kept
    raise ValueError(f"{program} parses nothing")


def parse_serving(arguments: Sequence[str]) -> Parsed | None:
    """The same of `vllm-prm`, which leaves vLLM's flags over."""
    serve = importlib.import_module("vllm_prm.serve")
    return parse(serve.main, "vllm-prm", arguments, "parse_known_args")


def parse_module(module: str, arguments: Sequence[str]) -> Parsed | None:
    """The same of `python -m MODULE`."""
    return parse(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True), module, arguments)


def check(words: Sequence[str]) -> None:
    """Raises ValueError where a command line of a page is wrong."""
    program, *rest = words
    if program == "ray" and rest[:2] == ["job", "submit"]:
        check(rest[rest.index("--") + 1 :])
    elif program == "env":
        check([word for word in rest if not re.match(r"[A-Z_]+=", word)])
    elif program in ("bash", "sbatch"):
        require_files(iter(rest[:1]))
    elif program in ("deepspeed", "torchrun"):
        at = next(index for index, word in enumerate(rest) if word in ("--module", "-m"))
        check_module(rest[at + 1], rest[at + 2 :])
    elif program.endswith(("python", "python3")) and rest[:1] == ["-m"]:
        check_module(rest[1], rest[2:])
    elif rest == ["--help"]:
        require(program in ("openrlhf-prm", "vllm-prm"), f"an unknown program: {program}")
    elif program == "openrlhf-prm":
        main = importlib.import_module("openrlhf_prm.cli.main")
        name, arguments = main.parse(list(rest))
        check_module(f"openrlhf_prm.cli.{main.COMMANDS[name].module}", arguments)
    elif program == "vllm-prm":
        check_serving(rest)
    elif program == "vllm" and rest[:1] == ["serve"]:
        check_vllm(["--model", *rest[1:]])
    elif program == "make":
        check_make(rest)
    elif program == "pip":
        check_extras(rest)
    elif program == "pytest":
        require_files(word.partition("::")[0] for word in rest if word.startswith("tests"))
    elif (ROOT / program).is_file():
        script = with_sourced(ROOT / program)
        require(all(word in script for word in rest if word.startswith("--")), f"{program} lacks one of {rest}")
    else:
        require(program in LEFT_ALONE, f"an unknown program: {program}")


def require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def require_files(names: Iterator[str]) -> None:
    for name in names:
        require((ROOT / name).exists(), f"there is no {name}")


def with_sourced(script: Path) -> str:
    """The text of a shell script, and of the scripts that it sources from its folder or the one above."""
    text = script.read_text()
    folders = (script.parent, script.parent.parent)
    names = re.findall(r'^\s*\. ".*?/(\w+\.sh)"$', text, re.MULTILINE)
    files = (next(folder / name for folder in folders if (folder / name).is_file()) for name in names)
    return "\n".join([text, *map(with_sourced, files)])


def check_module(module: str, arguments: Sequence[str]) -> None:
    """`...` in a command line stands for flags that a reader knows already."""
    if module == "vllm.entrypoints.openai.api_server":
        return check_vllm(arguments)
    if module == "pytest":
        return check(["pytest", *arguments])
    known = [word for word in arguments if word != "..."]
    if len(known) == len(arguments):
        parse_module(module, known)
        return
    with nothing_required():
        parse_module(module, known)


@contextlib.contextmanager
def nothing_required() -> Iterator[None]:
    """Within the block no argument is required."""
    kept = argparse.ArgumentParser.add_argument

    def add_argument(container, *names, **options):
        options.pop("required", None)
        return kept(container, *names, **({"nargs": "?"} if names[0][0] != "-" else {}) | options)

    argparse.ArgumentParser.add_argument = add_argument
    try:
        yield
    finally:
        argparse.ArgumentParser.add_argument = kept


def check_serving(arguments: Sequence[str]) -> None:
    parsed = parse_serving(arguments)
    if parsed is None:
        return
    if parsed.namespace.command == "serve":
        check_vllm(["--model", parsed.namespace.model, *parsed.rest])
    else:
        require(not parsed.rest, f"unrecognized arguments: {parsed.rest}")
    json.loads(getattr(parsed.namespace, "family_options", "{}"))


def check_vllm(arguments: Sequence[str]) -> None:
    """The flags of vLLM's server."""
    parse(lambda: vllm_parser().parse_args(), "vllm", arguments)


def vllm_parser() -> argparse.ArgumentParser:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def check_make(words: Sequence[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    for word in words:
        name, is_variable, _ = word.partition("=")
        if is_variable:
            require(f"$({name}" in makefile, f"the Makefile reads no variable {name}")
        else:
            require(word in targets, f"the Makefile has no target {word}")


def check_extras(words: Sequence[str]) -> None:
    """`pip install 'openrlhf-prm[a,b]'`: the extras are there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for group in re.findall(r"\[([\w,-]+)\]", " ".join(words)):
        for name in group.split(","):
            require(name in extras, f"there is no extra {name}")


def verdict(words: Sequence[str]) -> str:
    """What is wrong with a command line, or nothing."""
    try:
        check(words)
    except (ValueError, ImportError, StopIteration) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def option_strings(parser: argparse.ArgumentParser) -> set[str]:
    """The flags of a parser and of its subcommands."""
    flags = {name for action in parser._actions for name in action.option_strings}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags |= set().union(*map(option_strings, action.choices.values()))
    return flags


def every_flag() -> set[str]:
    """The flags of every command: ours, the hosts' that they take too, the benchmarks' and the examples'."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for folder in ("openrlhf_prm/cli", "benchmarks", "examples")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "parse_args(" in path.read_text() and 'if __name__ == "__main__"' in path.read_text()
    ]
    with nothing_required():
        parsers = [parse_module(module, ()).parser for module in [*modules, "openrlhf.cli.train_sft"]]
        parsers.append(parse_module("openrlhf_prm.cli.evaluate", ["--benchmark", "processbench"]).parser)
        parsers.append(parse_serving(["score"]).parser)
        parsers.append(vllm_parser())
    return set().union(*map(option_strings, parsers))


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    lines = json.load(sys.stdin)
    with contextlib.redirect_stdout(sys.stderr):
        answer = {"verdicts": [verdict(line) for line in lines], "flags": sorted(every_flag())}
    print(json.dumps(answer))
