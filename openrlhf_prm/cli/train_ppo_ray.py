"""`python -m openrlhf_prm.cli.train_ppo_ray`: OpenRLHF's PPO with every flag it has, plus --prm.*,
--process_reward.*, --length_penalty.* and more (`ppo/flags.py`).

Runs the host's own module unchanged. The host parses its flags under `__main__`, so this wraps the one `parse_args`
call: our flags are added before it, checked after it, and the host's classes are rebound before it goes on to build
them.
"""

import argparse
import runpy
import sys
import traceback
from typing import NoReturn

from openrlhf_prm.cli.parser import program_name
from openrlhf_prm.hosts import require_flash_attn, require_openrlhf

HOST = "openrlhf.cli.train_ppo_ray"


def main() -> None:
    """Runs the host's CLI with the plugin's flags."""
    from openrlhf_prm.cluster.accelerator import prepare_environment

    prepare_environment("--dry_run" in sys.argv)
    program = program_name("train_ppo_ray")  # before the host's name takes its place in sys.argv

    def complain(error: ValueError | str) -> NoReturn:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)

    try:
        require_openrlhf()
        require_flash_attn()  # the host's module imports it at its top
    except ValueError as error:
        complain(error)

    from openrlhf_prm import plugin

    host_parse_args = argparse.ArgumentParser.parse_args

    def parse_args(parser, *args, **kwargs):
        argparse.ArgumentParser.parse_args = host_parse_args
        parser.prog = program
        parser.error = complain  # the host's usage, which argparse prints before an error, fills screens
        plugin.add_arguments(parser)
        flat = host_parse_args(parser, *args, **kwargs)
        vars(flat).update(plugin.absolute_paths(vars(flat)))
        from openrlhf.utils.config import hierarchize

        namespace = hierarchize(flat)
        try:
            plugin.check_args(namespace)
        except ValueError as error:
            complain(error)
        plugin.setup(namespace)
        return flat

    argparse.ArgumentParser.parse_args = parse_args
    try:
        runpy.run_module(HOST, run_name="__main__", alter_sys=True)
    except Exception as error:
        from openrlhf_prm.cluster.failures import one_line

        traceback.print_exc()
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
