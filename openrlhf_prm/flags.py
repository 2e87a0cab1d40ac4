"""The plugin's command-line flags, in the host's dotted style, and the checks that run before any engine starts.

Registries are plain dicts of frozen dataclasses, so choices come from their keys and options from their fields.
Imports nothing heavy.
"""

import argparse
import dataclasses
import json
import re
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.rewards import REWARD_SHAPINGS, SCORE_SCALES
from openrlhf_prm.steps import STEP_SPLITTERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the plugin's flags to the host's PPO parser and widens `--algo.advantage.estimator` by our estimators."""
    group = parser.add_argument_group("process reward model (PRM)")
    group.add_argument("--prm.model_name_or_path", default=None, help="PRM checkpoint, scored by vLLM in Ray actors")
    group.add_argument("--prm.url", default=None, help="URL of a running `vllm-prm serve`, instead of own workers")
    group.add_argument("--prm.family", default=None, help="PRM family, where the checkpoint does not tell")
    group.add_argument("--prm.num_engines", type=int, default=1, help="number of PRM workers")
    group.add_argument("--prm.gpus_per_engine", type=float, default=1.0, help="share of a GPU per PRM worker")
    group.add_argument("--prm.gpu_memory_utilization", type=float, default=None)
    group.add_argument(
        "--prm.kv_cache_mb", type=int, default=None, help="KV cache per PRM worker in MiB, default vLLM's"
    )
    group.add_argument("--prm.dtype", default="auto", help="dtype of the PRM (auto, bfloat16, float16, float32)")
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
    group.add_argument("--process_reward.outcome_coef", type=float, default=1.0, help="weight of the outcome reward")
    group.add_argument("--process_reward.score_scale", default="signed", choices=list(SCORE_SCALES))
    _add_options(group, "process_reward", REWARD_SHAPINGS)

    group = parser.add_argument_group("length penalty")
    group.add_argument("--length_penalty.kind", default=None, choices=list(LENGTH_PENALTIES), help="default: none")
    group.add_argument("--length_penalty.coef", type=float, default=1.0, help="weight of the length penalty")
    _add_options(group, "length_penalty", LENGTH_PENALTIES)

    for action in parser._actions:
        if action.dest == "algo.advantage.estimator":
            action.choices = [*action.choices, *ADVANTAGE_ESTIMATORS]


def build(registry: dict[str, type], name: str, namespace: SimpleNamespace):
    """The registry's algorithm of that name with the options given on the command line; open ones keep the class's
    default.

    Raises ValueError for an option that the algorithm does not allow.
    """
    algorithm = registry[name]
    options = {field.name: getattr(namespace, field.name, None) for field in dataclasses.fields(algorithm)}
    return algorithm(**{key: value for key, value in options.items() if value is not None})


def uses_prm(args: SimpleNamespace) -> bool:
    """Whether a PRM was asked for; without one the host runs as if the plugin were absent, but for a length penalty."""
    return bool(args.prm.model_name_or_path or args.prm.url)


def check_args(args: SimpleNamespace) -> None:
    """Raises ValueError, naming the flag or the dataset row, for what cannot work. `args` is the host's hierarchized
    namespace.
    """
    if args.prm.model_name_or_path and args.prm.url:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    if args.prm.model_name_or_path and not Path(args.prm.model_name_or_path).is_dir():
        # Hub ids are "owner/name"; anything that looks like a path must exist.
        if args.prm.model_name_or_path.startswith((".", "/", "~")) or args.prm.model_name_or_path.count("/") != 1:
            raise ValueError(f"--prm.model_name_or_path: there is no folder {args.prm.model_name_or_path}")
    if args.prm.kv_cache_mb is not None and args.prm.kv_cache_mb < 1:
        raise ValueError(f"--prm.kv_cache_mb must be at least 1, got {args.prm.kv_cache_mb}")
    if args.prm.num_engines < 1:
        raise ValueError(f"--prm.num_engines must be at least 1, got {args.prm.num_engines}")
    if args.prm.family is not None:
        from vllm_prm.families import PRM_FAMILIES

        if args.prm.family not in PRM_FAMILIES:
            raise ValueError(f"--prm.family: unknown {args.prm.family!r}; choose one of {', '.join(PRM_FAMILIES)}")
    if args.prm.question_pattern is not None:
        try:
            groups = re.compile(args.prm.question_pattern).groups
        except re.error as error:
            raise ValueError(f"--prm.question_pattern is no regular expression: {error}") from None
        if groups < 1:
            raise ValueError("--prm.question_pattern needs a group (...) around the question")
    estimator = args.algo.advantage.estimator
    if estimator in ADVANTAGE_ESTIMATORS:
        build(ADVANTAGE_ESTIMATORS, estimator, args.algo.advantage)
        needs = ADVANTAGE_ESTIMATORS[estimator].needs
        if "step_rewards" in needs and not uses_prm(args):
            raise ValueError(f"--algo.advantage.estimator {estimator} needs --prm.model_name_or_path or --prm.url")
        if "group" in needs and args.rollout.n_samples_per_prompt < 2:
            raise ValueError(f"--algo.advantage.estimator {estimator} needs --rollout.n_samples_per_prompt above 1")
        if args.algo.advantage.gamma != 1.0:
            raise ValueError(f"--algo.advantage.estimator {estimator} needs --algo.advantage.gamma 1")
    if args.vllm.num_engines is not None and args.vllm.num_engines < 1 and uses_prm(args):
        raise ValueError("--prm.*: step scores need rollouts by vLLM, --vllm.num_engines above 0")
    build(REWARD_SHAPINGS, args.process_reward.shaping, args.process_reward)
    if args.length_penalty.kind is not None:
        build(LENGTH_PENALTIES, args.length_penalty.kind, args.length_penalty)
    for flag, paths in (("--data.prompt_dataset", args.data.prompt_dataset), ("--eval.dataset", args.eval.dataset)):
        for path in (paths or "").split(","):
            _check_rows(flag, path.strip(), args.data.input_key, args.data.label_key)


def _check_rows(flag: str, path: str, input_key: str, label_key: str | None) -> None:
    """Every row of a local JSONL file must have its question and label; other formats are the host's business."""
    if not path.endswith(".jsonl"):
        return
    if not Path(path).is_file():
        raise ValueError(f"{flag}: there is no file {path}")
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{flag}: {path} line {number} is not JSON: {error.msg}") from None
            for key in filter(None, (input_key, label_key)):
                if row.get(key) in (None, ""):
                    raise ValueError(f"{flag}: {path} line {number} has no {key!r}")


def _add_options(group, prefix: str, registry: dict[str, type]) -> None:
    options: dict[str, list[str]] = {}
    types = {}
    for name, algorithm in registry.items():
        for field in dataclasses.fields(algorithm):
            options.setdefault(field.name, []).append(f"{name}: {field.default}")
            types[field.name] = type(field.default)
    for option, defaults in options.items():
        group.add_argument(
            f"--{prefix}.{option}", type=types[option], default=None, help=f"default {'; '.join(defaults)}"
        )
