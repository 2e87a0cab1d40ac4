"""The command `vllm-prm`.

vllm-prm serve MODEL [any flag of vLLM's server]    POST /v1/step_rewards
vllm-prm inspect MODEL                              what the checkpoint says about itself, without an engine
vllm-prm score MODEL --input in.jsonl --output out.jsonl
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pkgutil import resolve_name

from vllm_prm.checkpoint import TOKENIZER_OPTIONS, load_served_family
from vllm_prm.disk import ONCE_MORE, disk_fault
from vllm_prm.doors import doors
from vllm_prm.engines import device_defaults
from vllm_prm.errors import StepScoringError
from vllm_prm.families import PRM_FAMILIES, Detection, PRMFamily, detect_family, load_family, resolve_family
from vllm_prm.hosts import require_vllm
from vllm_prm.interrupts import end_as_after_ctrl_c
from vllm_prm.json_flags import json_object
from vllm_prm.limits import add_limit_flags, limits_from_flags

ENTRY_POINT_GROUPS = ("vllm.general_plugins", "vllm.endpoint_plugins", "vllm.io_processor_plugins")
IO_PROCESSOR = "vllm_prm_step_rewards"


def serve_command(
    model: str, family: str | None, vllm_flags: Sequence[str], family_options: Mapping | None = None
) -> list[str]:
    """The command line of vLLM's server for the PRM `model`; the user's `vllm_flags` come last and win.

    Raises `ValueError` for an unknown family, vocabulary or option before any engine starts.
    """
    flags, user_overrides = _split_hf_overrides(vllm_flags)
    loaded = load_served_family(model, family, options=family_options, **_tokenizer_options(flags))
    _warn_of_guesses("serve", loaded)
    resolve_name(loaded.scorer).check_options(model, loaded, _share_of_memory(flags))
    overrides = {**loaded.hf_overrides(), **user_overrides}
    ours = ["--runner", loaded.runner, "--enable-prefix-caching", "--hf-overrides", json.dumps(overrides)]
    if loaded.engines > 1:
        _require_one_process(flags)
    elif loaded.runner == "pooling" and loaded.one_prompt:
        ours += ["--io-processor-plugin", IO_PROCESSOR]
    given = {flag.partition("=")[0].lstrip("-").replace("-", "_") for flag in flags}
    if not given & {"log_error_stack", "no_log_error_stack"}:
        ours.append("--no-log-error-stack")  # a client's mistake is a line of the log, not a traceback
    for name, value in device_defaults(given, loaded.engines).items():
        ours += [f"--{name.replace('_', '-')}", str(value)]
    return [*_server(model), *ours, *flags]


def _warn_of_guesses(command: str, family: PRMFamily) -> None:
    for guess in family.guesses:
        print(f"vllm-prm {command}: warning: {guess}", file=sys.stderr)


def _server(model: str) -> list[str]:
    # `vllm serve` asks for the version of the distribution "vllm"; CPU wheels carry another name and it crashes.
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    return [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", model]


def _tokenizer_options(flags: Sequence[str]) -> dict:
    """Those of vLLM's `flags` that decide which tokenizer and which revision of the config it will use."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for name in TOKENIZER_OPTIONS:
        parser.add_argument(
            f"--{name.replace('_', '-')}", f"--{name}", action="store_true" if name == "trust_remote_code" else "store"
        )
    return _read(parser, flags)


def _read(parser: argparse.ArgumentParser, flags: Sequence[str]) -> dict:
    """Those of `flags` that `parser` knows."""
    try:
        options, _ = parser.parse_known_args(list(flags))
    except argparse.ArgumentError as error:
        raise ValueError(str(error)) from error
    return vars(options)


def _share_of_memory(flags: Sequence[str]) -> dict[str, float]:
    """What `flags` of vLLM say of it, as an engine argument."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    names = ("--gpu-memory-utilization", "--gpu_memory_utilization")
    parser.add_argument(*names, type=float, default=argparse.SUPPRESS)
    return _read(parser, flags)


def _require_one_process(flags: Sequence[str]) -> None:
    """`ValueError` if `flags` of vLLM ask for several API server processes: each would start a second engine."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False, exit_on_error=False)
    for names in (("--api-server-count", "-asc"), ("--data-parallel-size", "-dp")):
        parser.add_argument(*names, names[0].replace("-", "_").replace("__", "--", 1), type=int, default=1)
    for name, value in _read(parser, flags).items():
        if value != 1:
            raise ValueError(
                f"--{name.replace('_', '-')} must be 1 for a PRM of two models, got {value}; start several servers"
            )


def _split_hf_overrides(flags: Sequence[str]) -> tuple[list[str], dict]:
    """Take `--hf-overrides JSON` and `--hf-overrides.KEY VALUE` out of `flags`, so that they add to our overrides
    instead of replacing them. `ValueError` for vLLM's `--config`, over whose values our flags would win unseen.
    """
    kept: list[str] = []
    given: dict = {}
    rest = iter(flags)
    for flag in rest:
        name, equals, value = flag.partition("=")
        option, *path = name.split(".")
        if option == "--config":
            raise ValueError("--config is not read: give what the file holds as flags")
        if option.replace("_", "-") != "--hf-overrides":
            kept.append(flag)
            continue
        value = value if equals else next(rest, "")
        if not path:
            given |= json_object("--hf-overrides", value)
            continue
        node = given
        for key in path[:-1]:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise ValueError(f"{name}: {key} was given another value before")
        try:
            node[path[-1]] = json.loads(value)
        except json.JSONDecodeError:
            node[path[-1]] = value  # a text without quotes, as vLLM takes it
    return kept, given


def serve_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of the server: VLLM_PLUGINS must name our endpoint for vLLM to load it.

    Setting that variable hides every plugin it leaves out, so when it was unset all installed general ones are named.
    Raises `ValueError` when the package is not installed, because vLLM finds plugins through entry points only.
    """
    groups = [importlib.metadata.entry_points(group=group) for group in ENTRY_POINT_GROUPS]
    ours = [[plugin.name for plugin in group if _is_ours(plugin)] for group in groups]
    if not all(ours):
        raise ValueError(
            f"no installed distribution offers the entry points of vllm_prm in {', '.join(ENTRY_POINT_GROUPS)}, "
            "so vLLM could not load it; install the package (pip install -e . is enough)"
        )
    named = environment.get("VLLM_PLUGINS")
    plugins = [plugin.name for plugin in groups[0]] if named is None else [name for name in named.split(",") if name]
    return {**environment, "VLLM_PLUGINS": ",".join(dict.fromkeys([*plugins, *itertools.chain(*ours)]))}


def _is_ours(plugin: importlib.metadata.EntryPoint) -> bool:
    return plugin.module.split(".")[0] == "vllm_prm"


def inspect_checkpoint(model: str, family: str | None, family_options: Mapping | None = None) -> dict:
    """What scoring with `model` would do: family and why, architecture, options, head, and a rendered example."""
    detection = Detection(family, "named by --family") if family else detect_family(model)
    loaded = load_family(model, detection.family, options=family_options)
    _warn_of_guesses("inspect", loaded)
    rendered = loaded.render("1 + 1 = ?", ["1 + 1 = 2.", "The answer is 2."])
    return {
        "model": model,
        "family": detection.family,
        "reason": detection.reason,
        **loaded.hf_overrides(),
        "guesses": list(loaded.guesses),
        "example": {
            "question": "1 + 1 = ?",
            "steps": ["1 + 1 = 2.", "The answer is 2."],
            "text": loaded.tokenizer.decode(rendered.token_ids),
            "token_ids": rendered.token_ids,
            "step_positions": rendered.step_positions,
        },
    }


def readable_json(facts: dict) -> str:
    """Indented, but a list of numbers on one line: JSON writes a line end within a text as two characters, so what
    spans lines is no text."""
    indented = json.dumps(facts, indent=2, ensure_ascii=False)
    return re.sub(
        r"\[\n[\s\d.,-]+\]",
        lambda numbers: re.sub(r"\s+", " ", numbers[0]).replace("[ ", "[").replace(" ]", "]"),
        indented,
    )


def _require_family(family: str | None) -> None:
    if family is None:
        return
    try:
        resolve_family(family)
    except ValueError as error:
        raise ValueError(f"--family: {error}") from None


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of `vllm-prm`. A user's mistake ends with one line on stderr and status 2."""
    parser = argparse.ArgumentParser(prog="vllm-prm", description="Step rewards from process reward models on vLLM.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "start vLLM's server with POST /v1/step_rewards; takes every flag of that server but --config"),
        ("inspect", "say how a checkpoint would be rendered and read"),
        ("score", "score a JSONL file"),
    ):
        # Prefixes are left alone: --max must reach vLLM as the user wrote it.
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        nargs, unless = ("?", "; not needed with --url") if name == "score" else (None, "")
        command.add_argument("model", nargs=nargs, help=f"folder or hub id of the PRM{unless}")
        families = f"{', '.join(sorted(PRM_FAMILIES))}, or FILE.py:Class; default: what the checkpoint shows"
        command.add_argument("--family", help=families)
        command.add_argument("--family-options", default="{}", help='options of the family as JSON, e.g. {"bos": true}')
        if name == "serve":
            add_limit_flags(command)
        if name == "score":
            from vllm_prm.score_file import add_arguments

            add_arguments(command)
    args, rest = parser.parse_known_args(argv)
    end_as_after_ctrl_c()
    try:
        args.family_options = json_object("--family-options", args.family_options)
        _require_family(args.family)
        if args.command == "serve" or (args.command == "score" and not args.url):
            require_vllm()
        if args.command == "serve":
            opened = doors(rest, serve_environment(os.environ) | limits_from_flags(args).environment())
            command = serve_command(args.model, args.family, opened.flags, args.family_options)
            for warning in opened.warnings:
                print(f"vllm-prm serve: warning: {warning}", file=sys.stderr)
            sys.stdout.flush()
            os.execve(command[0], command, opened.environment)
        if rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        if args.command == "inspect":
            facts = inspect_checkpoint(args.model, args.family, args.family_options)
            print(readable_json(facts))
        else:
            from vllm_prm.score_file import score_file

            score_file(args)
    except (ValueError, StepScoringError) as error:
        parser.exit(2, f"vllm-prm {args.command}: {' '.join(str(error).split())}\n")
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        parser.exit(1, f"vllm-prm {args.command}: {fault}; {ONCE_MORE}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"vllm-prm {args.command}: interrupted\n")


if __name__ == "__main__":
    main()
