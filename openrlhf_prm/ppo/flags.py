"""The plugin's command-line flags, in the host's dotted style.

Registries are plain dicts of frozen dataclasses, so choices come from their keys and options from their fields.
Imports nothing heavy.
"""

import argparse
import dataclasses
from types import SimpleNamespace

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.branch_values import VALUE_SOURCES, VineOptions
from openrlhf_prm.data.steps import STEP_SPLITTERS
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.ppo.diversity import DiversityOptions
from openrlhf_prm.ppo.score_ranges import SCORE_RANGES
from openrlhf_prm.ppo.watching import WatchOptions
from openrlhf_prm.rewards import REWARD_SHAPINGS, SCORE_SCALES
from openrlhf_prm.rewards.implicit import GRANULARITIES

ONLINE_PRM_FOLDER = "_online_prm"
"""Where its checkpoints lie in `--ckpt.path`, beside the host's `_actor`."""
HOST_ESTIMATOR_FLAGS = ("lambd", "std_norm")
"""Options of estimators for which the host has flags of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the plugin's flags to the host's PPO parser and widens `--algo.advantage.estimator` by our estimators."""
    group = parser.add_argument_group("process reward model (PRM)")
    group.add_argument("--prm.model_name_or_path", default=None, help="PRM checkpoint, scored by vLLM in Ray actors")
    group.add_argument("--prm.url", default=None, help="URL of a running `vllm-prm serve`, instead of own workers")
    group.add_argument("--prm.family", default=None, help="PRM family, where the checkpoint does not tell")
    group.add_argument(
        "--prm.score_range",
        default="probability",
        choices=list(SCORE_RANGES),
        help="its scores: in [0, 1]; in [-1, 1], as PURE's PRM; any number, as an implicit PRM or a raw value head",
    )
    group.add_argument("--prm.num_engines", type=int, default=1, help="number of PRM workers")
    group.add_argument("--prm.gpus_per_engine", type=float, default=1.0, help="share of a GPU per PRM worker")
    group.add_argument("--prm.gpu_memory_utilization", type=float, default=None)
    group.add_argument(
        "--prm.kv_cache_mb", type=int, default=None, help="KV cache per PRM worker in MiB, default vLLM's"
    )
    group.add_argument("--prm.dtype", default="auto", choices=["auto", "bfloat16", "float16", "float32"])
    group.add_argument("--prm.max_model_len", type=int, default=None)
    group.add_argument("--prm.enforce_eager", action="store_true", help="disable CUDA graphs in the PRM workers")
    group.add_argument(
        "--prm.question_pattern",
        default=None,
        help="regular expression whose first group is the question within a chat-templated prompt; default: the prompt",
    )
    group.add_argument("--steps.splitter", default="newline", choices=list(STEP_SPLITTERS), help="where a step ends")

    group = parser.add_argument_group("process reward")
    group.add_argument("--process_reward.shaping", default="min_form", choices=list(REWARD_SHAPINGS))
    group.add_argument("--process_reward.coef", type=float, default=1.0, help="weight of the process reward")
    group.add_argument(
        "--process_reward.outcome_coef", type=float, default=1.0, help="weight of the outcome reward, penalties apart"
    )
    group.add_argument("--process_reward.score_scale", default="signed", choices=list(SCORE_SCALES))
    group.add_argument(
        "--process_reward.warmup_steps", type=int, default=0, help="rollouts until coef is reached, linearly from 0"
    )
    group.add_argument(
        "--process_reward.normalise", action="store_true", help="divide process rewards by their deviation in the batch"
    )
    group.add_argument(
        "--process_reward.truncation_penalty", type=float, default=0.0, help="taken off the outcome of a cut response"
    )
    group.add_argument(
        "--process_reward.format_pattern",
        default=None,
        help="regular expression a response must contain; without it, it gets no positive process reward",
    )
    group.add_argument(
        "--process_reward.format_penalty", type=float, default=0.0, help="taken off the outcome of a malformed response"
    )
    _add_options(group, "process_reward", REWARD_SHAPINGS, choices={"granularity": GRANULARITIES})

    group = parser.add_argument_group("PRM trained in the loop (--process_reward.shaping implicit)")
    group.add_argument("--online_prm.model_name_or_path", default=None, help="where it starts; default: the policy's")
    group.add_argument("--online_prm.reference", default=None, help="its reference model; default: where it starts")
    group.add_argument(
        "--online_prm.update",
        default="before",
        choices=["before", "after"],
        help="whether it learns from a rollout before or after it rewards it",
    )
    group.add_argument("--online_prm.lr", type=float, default=1e-6, help="learning rate, constant")
    group.add_argument("--online_prm.max_norm", type=float, default=10.0, help="gradient clipping")
    group.add_argument(
        "--online_prm.batch_size", type=int, default=None, help="responses per update of it; default: train.batch_size"
    )
    group.add_argument("--online_prm.num_nodes", type=int, default=1, help="number of nodes for it")
    group.add_argument("--online_prm.num_gpus_per_node", type=int, default=1, help="number of GPUs per node for it")
    group.add_argument("--online_prm.gpus_per_actor", type=float, default=1.0, help="share of a GPU per process")
    group.add_argument(
        "--online_prm.save", action="store_true", help="save it beside --ckpt.output_dir, with the suffix _online_prm"
    )

    group = parser.add_argument_group("values of states (estimators vine and spo)")
    group.add_argument("--vine.control_variate", action="store_true", help="the PRM makes branch values less noisy")
    _add_options(group, "vine", {"vine": VineOptions}, choices={"values": VALUE_SOURCES})
    group = parser.add_argument_group("diversity of reasoning")
    _add_options(group, "diversity", {"diversity": DiversityOptions})
    group = parser.add_argument_group("watching for reward hacking")
    _add_options(group, "watch", {"watch": WatchOptions})

    group = parser.add_argument_group("length penalty")
    group.add_argument("--length_penalty.kind", default=None, choices=list(LENGTH_PENALTIES), help="default: none")
    group.add_argument("--length_penalty.coef", type=float, default=1.0, help="weight of the length penalty")
    group.add_argument(
        "--length_penalty.warmup_steps", type=int, default=0, help="rollouts until coef is reached, linearly from 0"
    )
    _add_options(group, "length_penalty", LENGTH_PENALTIES)

    group = parser.add_argument_group("advantages")
    group.add_argument(
        "--algo.advantage.constant_length_norm",
        action="store_true",
        help="Dr. GRPO: divide a response's loss by the length limit instead of its own length",
    )
    group.add_argument(
        "--algo.advantage.negative_weight",
        type=float,
        default=1.0,
        help="what negative advantages are multiplied by, 0 to 1, with any estimator",
    )
    _add_options(group, "algo.advantage", ADVANTAGE_ESTIMATORS, host_flags=HOST_ESTIMATOR_FLAGS)
    for action in parser._actions:
        if action.dest == "algo.advantage.estimator":
            action.choices = [*action.choices, *ADVANTAGE_ESTIMATORS]


def build(registry: dict[str, type], name: str, namespace: SimpleNamespace):
    """The registry's algorithm of that name with the options given on the command line; open ones keep the class's
    default.

    Raises ValueError for an option that the algorithm does not allow.
    """
    return options_of(registry[name], namespace)


def options_of(options: type, namespace: SimpleNamespace):
    """An instance of an options dataclass, as `build`."""
    given = {field.name: getattr(namespace, field.name, None) for field in dataclasses.fields(options)}
    return options(**{key: value for key, value in given.items() if value is not None})


def build_estimator(args: SimpleNamespace):
    """The plugin's advantage estimator that the flags ask for, or None for one of the host's."""
    name = args.algo.advantage.estimator
    if name not in ADVANTAGE_ESTIMATORS:
        return None
    flags = SimpleNamespace(**vars(args.algo.advantage), std_norm=not args.algo.advantage.no_std_norm)
    return build(ADVANTAGE_ESTIMATORS, name, flags)


def target_options(args: SimpleNamespace):
    """The length penalty, where it reads a target length from the prompt; else None."""
    kind = args.length_penalty.kind
    if kind is None or "targets" not in LENGTH_PENALTIES[kind].needs:
        return None
    return build(LENGTH_PENALTIES, kind, args.length_penalty)


def uses_prm(args: SimpleNamespace) -> bool:
    """Whether a PRM was asked for."""
    return bool(args.prm.model_name_or_path or args.prm.url)


def uses_online_prm(args: SimpleNamespace) -> bool:
    """Whether a PRM is to be trained in the loop."""
    return "log_ratios" in REWARD_SHAPINGS[args.process_reward.shaping].needs


def uses_steps(args: SimpleNamespace) -> bool:
    """Whether responses are to be split into steps: for a PRM, or for an estimator of the plugin."""
    return uses_prm(args) or uses_online_prm(args) or args.algo.advantage.estimator in ADVANTAGE_ESTIMATORS


def uses_plugin(args: SimpleNamespace) -> bool:
    """Whether anything of the plugin was asked for; else the host runs as if it were absent, bit for bit."""
    changes_outcome = (
        args.length_penalty.kind,
        args.diversity.coef,
        args.process_reward.truncation_penalty,
        args.process_reward.format_pattern,
        args.process_reward.outcome_coef != 1.0,
        args.algo.advantage.constant_length_norm,
        args.algo.advantage.negative_weight != 1.0,
    )
    return uses_steps(args) or any(changes_outcome)


def _add_options(group, prefix: str, registry: dict[str, type], *, host_flags=(), choices=()) -> None:
    options: dict[str, list[str]] = {}
    types = {}
    for name, algorithm in registry.items():
        for field in dataclasses.fields(algorithm):
            if field.name not in host_flags:
                options.setdefault(field.name, []).append(f"{name}: {field.default}")
                types[field.name] = type(field.default)
    for option, defaults in options.items():
        group.add_argument(
            f"--{prefix}.{option}",
            type=types[option],
            default=None,
            choices=dict(choices).get(option),
            help=f"default {'; '.join(defaults)}",
        )
