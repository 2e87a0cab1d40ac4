"""The checks of the plugin's flags that run before any engine starts. Imports nothing heavy."""

import dataclasses
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.advantages import ADVANTAGE_ESTIMATORS
from openrlhf_prm.advantages.branch_values import VineOptions
from openrlhf_prm.cluster.checks import require_at_least_one, require_checkpoint, require_family, require_urls
from openrlhf_prm.cluster.context_length import model_context, require_room
from openrlhf_prm.length_penalties import LENGTH_PENALTIES
from openrlhf_prm.ppo.diversity import DiversityOptions
from openrlhf_prm.ppo.flags import (
    HOST_ESTIMATOR_FLAGS,
    ONLINE_PRM_FOLDER,
    build,
    build_estimator,
    options_of,
    uses_online_prm,
    uses_plugin,
    uses_prm,
    uses_steps,
)
from openrlhf_prm.ppo.watching import WatchOptions
from openrlhf_prm.rewards import REWARD_SHAPINGS


def check_args(args: SimpleNamespace) -> None:
    """Raises ValueError, naming the flag or the dataset row, for what cannot work. `args` is the host's hierarchized
    namespace.
    """
    _check_numbers(args)
    _check_prm(args)
    _check_estimator(args)
    _check_online_prm(args)
    if not args.vllm.num_engines and uses_steps(args):
        raise ValueError("--prm.* and step estimators need rollouts by vLLM, --vllm.num_engines above 0")
    urls = args.reward.remote_url or []  # a patched host has split it already
    for url in map(str.strip, urls.split(",") if isinstance(urls, str) else urls):
        if url.endswith(".py") and not Path(url).is_file():
            raise ValueError(f"--reward.remote_url: there is no file {url}")
    build(REWARD_SHAPINGS, args.process_reward.shaping, args.process_reward)
    if args.process_reward.format_pattern is not None:
        _compiled("--process_reward.format_pattern", args.process_reward.format_pattern)
    elif args.process_reward.format_penalty:
        raise ValueError("--process_reward.format_penalty needs --process_reward.format_pattern")
    if args.length_penalty.kind is not None:
        build(LENGTH_PENALTIES, args.length_penalty.kind, args.length_penalty)
        if "group" in LENGTH_PENALTIES[args.length_penalty.kind].needs and args.rollout.n_samples_per_prompt < 2:
            raise ValueError(
                f"--length_penalty.kind {args.length_penalty.kind} needs --rollout.n_samples_per_prompt above 1"
            )
    options_of(DiversityOptions, args.diversity)
    options_of(WatchOptions, args.watch)
    _check_unread(args)
    if args.data.prompt_dataset is None and uses_plugin(args):
        raise ValueError("--data.prompt_dataset is missing: the questions to train on")
    longest = []
    for flag, paths in (("--data.prompt_dataset", args.data.prompt_dataset), ("--eval.dataset", args.eval.dataset)):
        for path in (paths or "").split(","):
            longest.append(_check_rows(flag, path.strip(), args.data.input_key, args.data.label_key))
    if args.prm.model_name_or_path:
        _check_room(args, longest)


def _check_numbers(args: SimpleNamespace) -> None:
    """Numbers must be finite, and some of them not negative."""
    for prefix in ("prm", "process_reward", "length_penalty", "diversity", "watch", "vine", "online_prm"):
        for option, value in vars(getattr(args, prefix)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{prefix}.{option} must be a finite number, got {value}")
    for prefix, option in (
        ("process_reward", "warmup_steps"),
        ("process_reward", "truncation_penalty"),
        ("process_reward", "format_penalty"),
        ("length_penalty", "warmup_steps"),
    ):
        value = getattr(getattr(args, prefix), option)
        if value < 0:
            raise ValueError(f"--{prefix}.{option} must be at least 0, got {value}")


def _check_prm(args: SimpleNamespace) -> None:
    """The PRM must be there, be of a known family, and get resources that exist."""
    options = args.prm
    if options.model_name_or_path and options.url:
        raise ValueError("--prm.model_name_or_path and --prm.url exclude each other")
    require_at_least_one(args, "prm.kv_cache_mb", "prm.num_engines", "prm.max_model_len")
    if not options.gpus_per_engine > 0:
        raise ValueError(f"--prm.gpus_per_engine must be above 0, got {options.gpus_per_engine}")
    if options.gpu_memory_utilization is not None and not 0 < options.gpu_memory_utilization <= 1:
        raise ValueError(f"--prm.gpu_memory_utilization must lie in (0, 1], got {options.gpu_memory_utilization}")
    if options.url:
        require_urls("--prm.url", [options.url])
    if options.model_name_or_path:
        require_checkpoint("--prm.model_name_or_path", options.model_name_or_path)
    require_family(options.family, options.model_name_or_path)
    if options.question_pattern is not None:
        if _compiled("--prm.question_pattern", options.question_pattern).groups < 1:
            raise ValueError("--prm.question_pattern needs a group (...) around the question")


def _check_unread(args: SimpleNamespace) -> None:
    """An option that nothing would read is refused: who gives it expects something of it."""
    shaping, kind = args.process_reward.shaping, args.length_penalty.kind
    rewarded = uses_prm(args) or uses_online_prm(args)
    if not rewarded:
        needs = "--prm.model_name_or_path, --prm.url or --process_reward.shaping implicit"
        _refuse(args, "process_reward", needs, coef=1.0, shaping="min_form", score_scale="signed", warmup_steps=0)
        if args.process_reward.normalise:
            raise ValueError(f"--process_reward.normalise needs {needs}")
    chosen = f"--process_reward.shaping {shaping}" if rewarded else "a run without a PRM"
    _refuse_options(args, "process_reward", REWARD_SHAPINGS, shaping if rewarded else None, chosen)
    if not uses_prm(args):
        _refuse(args, "prm", "--prm.model_name_or_path or --prm.url", score_range="probability", question_pattern=None)
    if not args.prm.model_name_or_path:
        local = {"num_engines": 1, "gpus_per_engine": 1.0, "dtype": "auto", "enforce_eager": False}
        local |= dict.fromkeys(("family", "gpu_memory_utilization", "kv_cache_mb", "max_model_len"))
        _refuse(args, "prm", "--prm.model_name_or_path", **local)
    if kind is None:
        _refuse(args, "length_penalty", "--length_penalty.kind", coef=1.0, warmup_steps=0)
    chosen = f"--length_penalty.kind {kind}" if kind else "a run without --length_penalty.kind"
    _refuse_options(args, "length_penalty", LENGTH_PENALTIES, kind, chosen)
    estimator = args.algo.advantage.estimator
    _refuse_options(args, "algo.advantage", ADVANTAGE_ESTIMATORS, estimator, f"--algo.advantage.estimator {estimator}")
    if not args.diversity.coef:
        _refuse(args, "diversity", "--diversity.coef", ngram=None, threshold=None)
    needs = build_estimator(args).needs if estimator in ADVANTAGE_ESTIMATORS else {"step_rewards"}
    if "branch_values" not in needs:
        unset = dict.fromkeys(field.name for field in dataclasses.fields(VineOptions))
        _refuse(args, "vine", "--algo.advantage.estimator vine or spo", **unset, control_variate=False)
    asked_for_values = args.vine.values == "prm" or args.vine.control_variate
    if "step_rewards" not in needs and uses_prm(args) and args.process_reward.coef and not asked_for_values:
        raise ValueError(
            f"--algo.advantage.estimator {estimator} reads no process rewards: give --process_reward.coef 0 "
            "where the PRM is to be logged or to filter samples, or leave out --prm.*"
        )


def _refuse(args: SimpleNamespace, prefix: str, needs: str, **defaults) -> None:
    for option, default in defaults.items():
        if getattr(getattr(args, prefix), option) != default:
            raise ValueError(f"--{prefix}.{option} needs {needs}")


def _refuse_options(args: SimpleNamespace, prefix: str, registry: dict[str, type], name: str | None, chosen: str):
    """Options of the registry's other algorithms."""
    own = {field.name for field in dataclasses.fields(registry[name])} if name in registry else set()
    namespace = args
    for part in prefix.split("."):
        namespace = getattr(namespace, part)
    for other, algorithm in registry.items():
        for field in dataclasses.fields(algorithm):
            # The host has flags of its own with these names.
            if field.name in own or field.name in HOST_ESTIMATOR_FLAGS:
                continue
            if getattr(namespace, field.name, None) is not None:
                raise ValueError(f"--{prefix}.{field.name} is an option of {other}, which {chosen} does not read")


def _check_rows(flag: str, path: str, input_key: str, label_key: str | None) -> str:
    """Every row of a local JSONL file must have its question, a text or a chat, and its label; other formats are the
    host's business. Returns the longest question that is a text.
    """
    longest, number = "", 0
    if not path.endswith(".jsonl"):
        return longest
    if not Path(path).is_file():
        raise ValueError(f"{flag}: there is no file {path}")
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                raise ValueError(f"{flag}: {path} line {number} is not UTF-8") from None
            except json.JSONDecodeError as error:
                raise ValueError(f"{flag}: {path} line {number} is not JSON: {error.msg}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{flag}: {path} line {number} is no object with keys")
            for key in filter(None, (input_key, label_key)):
                if row.get(key) in (None, "", []):
                    raise ValueError(f"{flag}: {path} line {number} has no {key!r}")
            if not isinstance(row[input_key], str | list):
                raise ValueError(
                    f"{flag}: {path} line {number}: {input_key!r} must be a text or a list of messages, "
                    f"got {row[input_key]!r}"
                )
            if isinstance(row[input_key], str):
                longest = max(longest, row[input_key], key=len)
    if not number:
        raise ValueError(f"{flag}: {path} has no rows")
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
    if name == "group_norm" and args.process_reward.outcome_coef not in (0.0, 1.0) and uses_plugin(args):
        raise ValueError(
            f"--process_reward.outcome_coef {args.process_reward.outcome_coef:g}: group_norm divides outcomes by their "
            "deviation, which takes a weight out again; weigh --process_reward.coef, or choose another estimator"
        )
    if not 0.0 <= args.algo.advantage.negative_weight <= 1.0:
        raise ValueError(
            f"--algo.advantage.negative_weight must lie in 0..1, got {args.algo.advantage.negative_weight}"
        )
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
        # DeepSpeed's offloaded gradients are not summed over micro-batches that each end an accumulation.
        ("--ds.adam_offload", args.ds.adam_offload),
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
        if model := getattr(options, option):
            require_checkpoint(f"--online_prm.{option}", model)


def _compiled(flag: str, pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{flag} is no regular expression: {error}") from None
