"""PPO's flags as the host itself parses them, with the plugin's."""

import argparse
from functools import cache
from types import SimpleNamespace

from real_parsers import ROOT, parse_module

from openrlhf_prm.cli.parser import nested

POLICY = ROOT / "examples" / "quickstart" / "policy"
GIVEN = (
    *("--actor.model_name_or_path", str(POLICY), "--reward.remote_url", "http://x"),
    *("--data.prompt_dataset", "owner/questions", "--data.label_key", "label"),
)


@cache
def parser() -> argparse.ArgumentParser:
    """The host's parser, widened by the plugin."""
    return parse_module("openrlhf_prm.cli.train_ppo_ray", ()).parser


def ppo_args(*flags: object) -> SimpleNamespace:
    """The namespace that the host hands to the plugin."""
    return nested(parser().parse_args([*GIVEN, *map(str, flags)]))
