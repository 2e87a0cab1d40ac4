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
from openrlhf_prm.advantages.branch_values import VALUE_SOURCES, VineOptions
from openrlhf_prm.checks import require_at_least_one, require_family
from openrlhf_prm.context_length import model_context, require_room
from openrlhf_prm.diversity import DiversityOptions
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.rewards import REWARD_SHAPINGS, SCORE_SCALES
from openrlhf_prm.rewards.implicit import GRANULARITIES
from openrlhf_prm.steps import STEP_SPLITTERS
from openrlhf_prm.watching import WatchOptions

ONLINE_PRM_FOLDER = "_online_prm"
"""Where its checkpoints lie in `--ckpt.path`, beside the host's `_actor`."""


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
    # The host has flags of its own for these two.
    _add_options(group, "algo.advantage", ADVANTAGE_ESTIMATORS, host_flags=("lambd", "std_norm"))
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
        args.algo.advantage.constant_length_norm,
    )
    return uses_steps(args) or any(changes_outcome)


def check_args(args: SimpleNamespace) -> None:
    """Raises ValueError, naming the flag or the dataset row, for what cannot work. `args` is the host's hierarchized
    namespace.
    """
    if args.prm.model_name_or_path and args.prm.url:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    _check_model("--prm.model_name_or_path", args.prm.model_name_or_path)
    require_at_least_one(args, "prm.kv_cache_mb", "prm.num_engines")
    require_family(args.prm.family)
    if args.prm.question_pattern is not None:
        if _compiled("--prm.question_pattern", args.prm.question_pattern).groups < 1:
            raise ValueError("--prm.question_pattern needs a group (...) around the question")
    _check_estimator(args)
    _check_online_prm(args)
    if args.vllm.num_engines is not None and args.vllm.num_engines < 1 and uses_steps(args):
        raise ValueError("--prm.* and step estimators need rollouts by vLLM, --vllm.num_engines above 0")
    build(REWARD_SHAPINGS, args.process_reward.shaping, args.process_reward)
    if args.process_reward.format_pattern is not None:
        _compiled("--process_reward.format_pattern", args.process_reward.format_pattern)
    elif args.process_reward.format_penalty:
        raise ValueError("--process_reward.format_penalty needs --process_reward.format_pattern")
    if args.length_penalty.kind is not None:
        build(LENGTH_PENALTIES, args.length_penalty.kind, args.length_penalty)
    for prefix in ("process_reward", "length_penalty"):
        if getattr(args, prefix).warmup_steps < 0:
            raise ValueError(f"--{prefix}.warmup_steps must be at least 0, got {getattr(args, prefix).warmup_steps}")
    options_of(DiversityOptions, args.diversity)
    options_of(WatchOptions, args.watch)
    longest = []
    for flag, paths in (("--data.prompt_dataset", args.data.prompt_dataset), ("--eval.dataset", args.eval.dataset)):
        for path in (paths or "").split(","):
            longest.append(_check_rows(flag, path.strip(), args.data.input_key, args.data.label_key))
    if args.prm.model_name_or_path:
        _check_room(args, longest)


def _check_rows(flag: str, path: str, input_key: str, label_key: str | None) -> str:
    """Every row of a local JSONL file must have its question and label; other formats are the host's business. Returns
    the longest question that is a text.
    """
    longest = ""
    if not path.endswith(".jsonl"):
        return longest
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
            if isinstance(row[input_key], str):
                longest = max(longest, row[input_key], key=len)
    return longest


def _check_room(args: SimpleNamespace, questions: list[str]) -> None:
    """The PRM must be able to read what the policy may write."""
    context = model_context(args.prm.model_name_or_path, args.prm.max_model_len)
    # The host cuts prompts, so that prompt and response together stay within --data.max_len.
    if context is None or args.data.max_len < context:
        return
    if args.rollout.max_new_tokens is None:
        raise ValueError(
            f"--data.max_len {args.data.max_len}: without --rollout.max_new_tokens prompt and response may have so "
            f"many tokens together, which do not fit the PRM's context of {context}"
        )
    require_room(args.prm.model_name_or_path, args.prm.max_model_len, questions, args.rollout.max_new_tokens)


def _check_estimator(args: SimpleNamespace) -> None:
    """What the advantage estimator needs, and the values of states."""
    vine = options_of(VineOptions, args.vine)
    name, estimator = args.algo.advantage.estimator, build_estimator(args)
    needs = estimator.needs if estimator else frozenset()
    flag = f"--algo.advantage.estimator {name}"
    if "step_rewards" in needs and not (uses_prm(args) or uses_online_prm(args)):
        raise ValueError(f"{flag} needs --prm.model_name_or_path or --prm.url, or --process_reward.shaping implicit")
    if "group" in needs and args.rollout.n_samples_per_prompt < 2:
        raise ValueError(f"{flag} needs --rollout.n_samples_per_prompt above 1")
    if estimator and args.algo.advantage.gamma != 1.0:
        raise ValueError(f"{flag} needs --algo.advantage.gamma 1")
    if "segments" in needs and uses_prm(args):
        raise ValueError(f"{flag} cuts segments by probability, which no PRM scores: leave out --prm.*")
    if "branch_values" in needs:
        asks_prm = vine.values == "prm" or args.vine.control_variate
        if asks_prm and not uses_prm(args):
            raise ValueError("--vine.values prm and --vine.control_variate need --prm.model_name_or_path or --prm.url")
        if vine.values == "rollouts" and not args.vllm.enable_prefix_caching:
            raise ValueError(f"{flag} needs --vllm.enable_prefix_caching, or every branch would be prefilled afresh")
        if vine.values == "rollouts" and args.train.agent_func_path:
            raise ValueError(f"{flag} branches single-turn responses: leave out --train.agent_func_path")
        if vine.values == "rollouts" and args.data.max_images_per_prompt:
            raise ValueError(f"{flag} branches text: leave out --data.max_images_per_prompt")
        if vine.values == "rollouts" and not args.reward.remote_url:
            raise ValueError(f"{flag} needs --reward.remote_url to judge branches")
    if args.algo.advantage.constant_length_norm and args.actor.loss_agg_mode != "seq-mean-token-mean":
        raise ValueError("--algo.advantage.constant_length_norm needs --actor.loss_agg_mode seq-mean-token-mean")


def _check_online_prm(args: SimpleNamespace) -> None:
    """What `implicit` needs, and what it cannot be combined with."""
    options, shaping = args.online_prm, f"--process_reward.shaping {args.process_reward.shaping}"
    if not uses_online_prm(args):
        for option in ("model_name_or_path", "reference", "batch_size", "save"):
            if getattr(options, option):
                raise ValueError(f"--online_prm.{option} needs --process_reward.shaping implicit")
        return
    if uses_prm(args):
        raise ValueError(f"{shaping} trains its own PRM: leave out --prm.model_name_or_path and --prm.url")
    name, estimator = args.algo.advantage.estimator, build_estimator(args)
    if estimator and "step_rewards" not in estimator.needs:
        raise ValueError(f"--algo.advantage.estimator {name} does not read the rewards of {shaping}")
    for flag, value in (
        ("--data.max_images_per_prompt", args.data.max_images_per_prompt),
        ("--ds.load_in_4bit", args.ds.load_in_4bit),
        ("--ds.ring_attn_size", args.ds.ring_attn_size > 1),
        ("--ds.tensor_parallel_size", args.ds.tensor_parallel_size > 1),
        ("--ds.use_universal_ckpt", args.ds.use_universal_ckpt),
    ):
        if value:
            raise ValueError(f"{shaping} does not work with {flag}")
    checkpoints = Path(args.ckpt.path)
    if args.ckpt.load_enable and (checkpoints / "_actor").exists() and not (checkpoints / ONLINE_PRM_FOLDER).exists():
        raise ValueError(
            f"--ckpt.load_enable: the checkpoint in {checkpoints} has no online PRM, which {shaping} needs"
        )
    if not options.lr > 0:
        raise ValueError(f"--online_prm.lr must be above 0, got {options.lr}")
    if options.max_norm < 0:
        raise ValueError(f"--online_prm.max_norm must be at least 0, got {options.max_norm}")
    if not 0 < options.gpus_per_actor <= 1:
        raise ValueError(f"--online_prm.gpus_per_actor must lie in (0, 1], got {options.gpus_per_actor}")
    for option in ("num_nodes", "num_gpus_per_node", "batch_size"):
        if getattr(options, option) is not None and getattr(options, option) < 1:
            raise ValueError(f"--online_prm.{option} must be at least 1, got {getattr(options, option)}")
    for option in ("model_name_or_path", "reference"):
        _check_model(f"--online_prm.{option}", getattr(options, option))


def _check_model(flag: str, model: str | None) -> None:
    """Hub ids are "owner/name"; anything that looks like a path must exist."""
    if model and not Path(model).is_dir() and (model.startswith((".", "/", "~")) or model.count("/") != 1):
        raise ValueError(f"{flag}: there is no folder {model}")


def _compiled(flag: str, pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{flag} is no regular expression: {error}") from None


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
