"""An entry of a registry is one line there and one file: its options are flags that say what they mean."""

import argparse
import dataclasses
import importlib
import re

import pytest
from real_parsers import nothing_required, parse, parse_serving

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.annotation import ANNOTATORS
from openrlhf_prm.cli.annotate import NOT_OF_THE_ANNOTATOR
from openrlhf_prm.cli.main import COMMANDS
from openrlhf_prm.generation.chains import SCHEMES
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.options import option_fields
from openrlhf_prm.plugin import add_arguments
from openrlhf_prm.ppo.flags import HOST_ESTIMATOR_FLAGS
from openrlhf_prm.rewards import REWARD_SHAPINGS


def plugin_parser() -> argparse.ArgumentParser:
    """The plugin's flags alone."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command, from a call without any flag."""
    if command == "train-ppo":
        return plugin_parser()
    if command == "vllm-prm":
        return parse_serving(["score"]).parser
    with nothing_required():
        return parse(importlib.import_module(f"openrlhf_prm.cli.{COMMANDS[command].module}").main, command, []).parser


def flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Flag or argument -> its action, subcommands' included."""
    actions = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                actions |= {f"{name} {flag}": action for flag, action in flags(command).items()}
        else:
            actions |= {name: action for name in action.option_strings or [action.dest]}
    return actions


def meaning(action: argparse.Action) -> str:
    """The help without what it says of the default."""
    return re.sub(r"[(;,]?\s*(default|%\(default\)s)[^);]*\)?", "", action.help or "").strip()


@pytest.mark.parametrize("command", [*COMMANDS, "vllm-prm"])
def test_every_flag_says_what_it_means(command):
    silent = [
        name
        for name, action in flags(parser_of(command)).items()
        if action.help is not argparse.SUPPRESS and len(meaning(action).split()) < 2
    ]
    assert silent == []


REGISTRIES = {
    "process_reward": ("train-ppo", REWARD_SHAPINGS, {}),
    "algo.advantage": ("train-ppo", ADVANTAGE_ESTIMATORS, dict.fromkeys(HOST_ESTIMATOR_FLAGS)),
    "length_penalty": ("train-ppo", LENGTH_PENALTIES, {}),
    "annotation": (
        "annotate",
        {name: annotator.Options for name, annotator in ANNOTATORS.items()},
        NOT_OF_THE_ANNOTATOR,
    ),
    "chain": ("generate", {name: scheme.Options for name, scheme in SCHEMES.items()}, {}),
}
"""Prefix of the flags -> the command that has them, the entries' options, and those with a flag in another group: None
where that flag is the host's."""


@pytest.mark.parametrize("prefix", REGISTRIES)
def test_every_option_of_every_entry_is_a_flag_that_says_what_it_means(prefix):
    command, entries, elsewhere = REGISTRIES[prefix]
    known = flags(parser_of(command))
    looked_at = 0
    for name, options in entries.items():
        written = {field.name: field for field in option_fields(options)}
        assert set(written) == {field.name for field in dataclasses.fields(options)}, f"{name}: a field without a flag"
        for field in written.values():
            group = elsewhere.get(field.name, prefix)
            if group is None:
                continue
            text = known[f"--{group}.{field.name}"].help
            assert group != prefix or field.metadata["text"].replace("%", "%%") in text, name
            looked_at += 1
    assert looked_at > 2
