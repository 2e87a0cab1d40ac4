"""The namespace that the host's trainer gets, from the host's own parser with the plugin's flags."""

import argparse
import runpy
from types import SimpleNamespace
from unittest import mock


def arguments(estimator: str, *flags: str) -> SimpleNamespace:
    from openrlhf.utils.config import hierarchize

    from openrlhf_prm import plugin

    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def stop(parser, *args, **kwargs):
        plugin.add_arguments(parser)
        raise Parsed(hierarchize(parse(parser, ["--algo.advantage.estimator", estimator, *flags])))

    # The host builds its parser under __main__ only; its defaults are what a user gets.
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            runpy.run_module("openrlhf.cli.train_ppo_ray", run_name="__main__")
        except Parsed as parsed:
            args = parsed.args[0]
    args.actor.eps_clip_low_high = (args.actor.eps_clip, args.actor.eps_clip)
    args.critic.model_name_or_path = None
    return args
