"""The plugin's command-line flags, in the host's dotted style: one per option of the groups and the registries.

Nothing heavy is imported. `GROUPS` and `CHOICES` are the one list of what has flags; help, defaults and bounds stand
beside the options.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.answers.outcome_rewards import OUTCOME_REWARD_FILES, outcome_reward
from openrlhf_prm.options import add_flags, named_in
from openrlhf_prm.ppo.algorithm_choices import ESTIMATOR, PENALTY, SHAPING, AlgorithmChoice
from openrlhf_prm.ppo.credit import CreditOptions
from openrlhf_prm.ppo.diversity import DiversityOptions
from openrlhf_prm.ppo.option_groups import (
    AdvantageOptions,
    LengthOptions,
    OnlinePRMOptions,
    OutcomeOptions,
    PRMOptions,
    PRMWorkerOptions,
    ProcessRewardOptions,
    StepOptions,
)
from openrlhf_prm.ppo.rollout.reward_patience import RewardOptions
from openrlhf_prm.ppo.self_correction.options import SelfCorrectionOptions
from openrlhf_prm.ppo.watching import WatchOptions
from openrlhf_prm.rewards.shaping import ShapingNeed
from vllm_prm.extension_files import names_file

TITLES = {
    "prm": "process reward model (PRM)",
    "steps": "reasoning steps",
    "credit": "turns of an agent",
    "self_correction": "self-correction (SCoRe)",
    "process_reward": "process reward",
    "reward": "outcome reward",
    "online_prm": "PRM trained in the loop",
    "vine": "values of states",
    "diversity": "diversity of reasoning",
    "watch": "watching for reward hacking",
    "length_penalty": "length penalty",
    "algo.advantage": "advantages",
}
"""Prefix of flags -> their heading in `--help`."""
HOST_ESTIMATOR_FLAGS = ("lambd", "std_norm")
"""Options of estimators for which the host has flags of its own."""


@dataclass(frozen=True)
class OptionGroup:
    """A class of options whose flags begin with `--PREFIX.`, and the field of `PluginOptions` that holds it. needs:
    what makes a run read it.
    """

    field: str
    prefix: str
    options: type
    needs: str = ""


def _that_need(choice: AlgorithmChoice, need: object) -> str:
    """The flag with all algorithms of a registry that need something."""
    return f"{choice.flag} {' or '.join(name for name, kind in choice.registry.items() if need in kind.needs)}"


A_PRM = "--prm.model_name_or_path or --prm.url"
LEARNING_PRM = _that_need(SHAPING, ShapingNeed.LOG_RATIOS)
ANY_PRM = f"--prm.model_name_or_path, --prm.url or {LEARNING_PRM}"
GROUPS = (
    OptionGroup("prm", "prm", PRMOptions, A_PRM),
    OptionGroup("workers", "prm", PRMWorkerOptions, "--prm.model_name_or_path"),
    OptionGroup("steps", "steps", StepOptions, "a PRM, or an estimator of the plugin that reads steps of text"),
    OptionGroup("credit", "credit", CreditOptions, "--train.agent_func_path"),
    OptionGroup("self_correction", "self_correction", SelfCorrectionOptions, "--self_correction.stage"),
    OptionGroup("process_reward", "process_reward", ProcessRewardOptions, ANY_PRM),
    OptionGroup("outcome", "process_reward", OutcomeOptions),
    OptionGroup("reward", "reward", RewardOptions, "--reward.remote_url or --train.agent_func_path"),
    OptionGroup("online_prm", "online_prm", OnlinePRMOptions, LEARNING_PRM),
    OptionGroup("vine", "vine", VineOptions, _that_need(ESTIMATOR, EstimatorNeed.BRANCH_VALUES)),
    OptionGroup("diversity", "diversity", DiversityOptions),
    OptionGroup("watch", "watch", WatchOptions, ANY_PRM),
    OptionGroup("length", "length_penalty", LengthOptions),
    OptionGroup("advantages", "algo.advantage", AdvantageOptions),
)
CHOICES = {"shaping": SHAPING, "penalty": PENALTY, "estimator": ESTIMATOR}
"""Field of `PluginOptions` -> what chooses the algorithm that it holds."""


def add_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> None:
    """Adds the plugin's flags to the host's PPO parser, and widens `--algo.advantage.estimator` and
    `--reward.remote_url` by ours.

    `arguments`: the command line, by default the process's: a class of a user's file that it chooses has flags too.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for prefix, title in TITLES.items():
        headed = parser.add_argument_group(title)
        for group in GROUPS:
            if group.prefix == prefix:
                add_flags(headed, prefix, group.options)
        for choice in CHOICES.values():
            if choice.prefix == prefix:
                taken = {action.dest.removeprefix(f"{prefix}.") for action in parser._actions}
                add_flags(
                    headed, prefix, with_chosen_file(choice, arguments), leave_out={*taken, *HOST_ESTIMATOR_FLAGS}
                )
    for action in parser._actions:
        if action.dest == "algo.advantage.estimator":
            widened = named_in({**dict.fromkeys(action.choices), **ESTIMATOR.registry})
            action.choices, action.type, action.metavar = None, widened["type"], widened["metavar"]
        elif action.dest == "reward.remote_url":
            action.type = _outcome_reward
            action.help = f"{', '.join(OUTCOME_REWARD_FILES)}; FILE.py with reward_func; or addresses of reward servers"


def with_chosen_file(choice: AlgorithmChoice, arguments: Sequence[str]) -> Mapping[str, type]:
    """The registry, behind the class of a user's file where the command line chooses one. A file that cannot be used is
    left to the parser, which says so.
    """
    peek = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    peek.add_argument(choice.flag, dest="name", default="")
    name = peek.parse_known_args(arguments)[0].name
    try:
        chosen = {name: choice.named(name)} if names_file(name) else {}
    except ValueError:
        chosen = {}
    return {**chosen, **choice.registry}


def _outcome_reward(value: str) -> str:
    try:
        return outcome_reward(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
