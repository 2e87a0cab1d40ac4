"""The checks of the plugin's flags that run before any engine starts. Imports nothing heavy.

Bounds of single options are checked where options are built; here stands what options and the host's flags ask of each
other, and of files.
"""

import math
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES
from openrlhf_prm.cluster.checks import require_checkpoint, require_family
from openrlhf_prm.cluster.remote_scorer import check_servers
from openrlhf_prm.length_penalties.penalty import PenaltyNeed
from openrlhf_prm.ppo.colocation import check_colocation
from openrlhf_prm.ppo.conflicting_flags import refuse_conflicts
from openrlhf_prm.ppo.flags import A_PRM, LEARNING_PRM
from openrlhf_prm.ppo.option_groups import ONLINE_PRM_FOLDER
from openrlhf_prm.ppo.paths import make_absolute
from openrlhf_prm.ppo.plugin_options import PluginOptions, read_options
from openrlhf_prm.ppo.prompt_checks import check_prompts
from openrlhf_prm.ppo.self_correction.checks import check_self_correction
from openrlhf_prm.ppo.unread_flags import refuse_unread_flags


def check_args(args: SimpleNamespace) -> None:
    """Raises ValueError, naming the flag or the dataset row, for what cannot work. `args` is the host's hierarchized
    namespace, whose relative paths become absolute.
    """
    make_absolute(args)
    options = read_options(args)
    _check_prm(options)
    _check_estimator(args, options)
    if EstimatorNeed.BRANCH_VALUES in options.estimator_needs:
        _check_branches(args, options)
    if EstimatorNeed.FORKS in options.estimator_needs:
        _check_forks(args, options)
    if options.online_prm is not None:
        _check_online_prm(args, options)
    check_self_correction(args, options)
    check_colocation(args, options)
    _check_weights(args, options)
    if not args.vllm.num_engines and options.looks_at_steps:
        raise ValueError("--prm.* and step estimators need rollouts by vLLM, --vllm.num_engines above 0")
    refuse_unread_flags(args, options)
    refuse_conflicts(args, options)
    check_prompts(args, options)


def _check_prm(options: PluginOptions) -> None:
    """The PRM must be there and of a known family."""
    if options.prm is None:
        return
    check_servers(options.prm, options.prm.model_name_or_path)
    if options.workers is not None:
        require_checkpoint("--prm.model_name_or_path", options.prm.model_name_or_path)
        require_family(options.workers.family, options.prm.model_name_or_path)


def _check_estimator(args: SimpleNamespace, options: PluginOptions) -> None:
    """What the advantage estimator needs of the run."""
    flag = f"--algo.advantage.estimator {args.algo.advantage.estimator}"
    needs = options.estimator_needs
    if options.estimator is not None:
        of_turns = options.credit is not None and options.credit.turn_rewards
        if EstimatorNeed.STEP_REWARDS in needs and options.shaping is None and not of_turns:
            raise ValueError(f"{flag} needs {A_PRM}, {LEARNING_PRM}, or --credit.turn_rewards")
        if EstimatorNeed.STEP_REWARDS not in needs and of_turns:
            raise ValueError(f"{flag} reads no rewards but the outcome: leave out --credit.turn_rewards")
        if EstimatorNeed.GROUP in needs and args.rollout.n_samples_per_prompt < 2:
            raise ValueError(f"{flag} needs --rollout.n_samples_per_prompt above 1")
        if args.algo.advantage.gamma != 1.0:
            raise ValueError(f"{flag} needs --algo.advantage.gamma 1")
        kl = args.algo.kl
        if EstimatorNeed.POLICY_LOG_RATIOS in needs and kl.init_coef <= 0:
            raise ValueError(f"{flag} needs a reference: --algo.kl.init_coef above 0, however small")
        if EstimatorNeed.POLICY_LOG_RATIOS in needs and not kl.use_loss and kl.estimator != "k1":
            raise ValueError(f"{flag} needs log-ratios: --algo.kl.estimator k1, or --algo.kl.use_loss")
        if EstimatorNeed.SEGMENTS in needs and options.prm is not None:
            raise ValueError(f"{flag} cuts segments by probability, which no PRM scores: leave out --prm.*")
    if EstimatorNeed.STEP_REWARDS in needs or options.shaping is None:
        return
    if options.online_prm is not None:
        shaping = f"--process_reward.shaping {options.process_reward.shaping}"
        raise ValueError(f"{flag} does not read the rewards of {shaping}")
    values_are_asked_for = options.vine is not None and (options.vine.values == "prm" or options.vine.control_variate)
    if options.process_reward.coef and not values_are_asked_for:
        raise ValueError(
            f"{flag} reads no process rewards: give --process_reward.coef 0 where the PRM is to be logged or to filter "
            "samples, or leave out --prm.*"
        )


def _check_branches(args: SimpleNamespace, options: PluginOptions) -> None:
    """What valuing states needs of the run."""
    flag = f"--algo.advantage.estimator {args.algo.advantage.estimator}"
    if (options.vine.values == "prm" or options.vine.control_variate) and options.prm is None:
        raise ValueError(f"--vine.values prm and --vine.control_variate need {A_PRM}")
    if options.vine.values == "prm":
        return
    _check_continuations(args, flag)
    if not args.reward.remote_url:
        raise ValueError(f"{flag} needs --reward.remote_url to judge branches")


def _check_forks(args: SimpleNamespace, options: PluginOptions) -> None:
    """What responses that go on from another one need of the run."""
    flag, samples = f"--algo.advantage.estimator {args.algo.advantage.estimator}", args.rollout.n_samples_per_prompt
    if math.prod(options.estimator.factors) != samples:
        raise ValueError(
            f"--algo.advantage.branching {options.estimator.branching} makes {math.prod(options.estimator.factors)} "
            f"responses, which must be --rollout.n_samples_per_prompt {samples}"
        )
    _check_continuations(args, flag)


def _check_continuations(args: SimpleNamespace, flag: str) -> None:
    """What it takes to go on from states of a response."""
    if not args.vllm.enable_prefix_caching:
        raise ValueError(f"{flag} needs --vllm.enable_prefix_caching, or every branch would be prefilled afresh")
    if args.train.agent_func_path:
        raise ValueError(f"{flag} branches single-turn responses: leave out --train.agent_func_path")
    if args.data.max_images_per_prompt:
        raise ValueError(f"{flag} branches text: leave out --data.max_images_per_prompt")


def _check_weights(args: SimpleNamespace, options: PluginOptions) -> None:
    """Weights of rewards and advantages, and groups for length penalties, that would have no effect."""
    name, weight = args.algo.advantage.estimator, options.outcome.outcome_coef
    if options.estimator is None and HOST_BASELINES[name].divides and weight not in (0.0, 1.0):
        raise ValueError(
            f"--process_reward.outcome_coef {weight:g}: {name} divides outcomes by their deviation, which takes a "
            "weight out again; weigh --process_reward.coef, or choose another estimator"
        )
    if options.process_reward and options.process_reward.baseline_of != "steps" and options.estimator is not None:
        raise ValueError(
            f"--process_reward.baseline_of {options.process_reward.baseline_of}: "
            f"{args.algo.advantage.estimator} has a baseline of its own; choose one of the host's estimators"
        )
    if options.advantages.length_alpha:
        if name != "gae":
            raise ValueError("--algo.advantage.length_alpha needs --algo.advantage.estimator gae")
        if args.algo.advantage.lambd != 1:
            raise ValueError("--algo.advantage.length_alpha gives lambda: leave out --algo.advantage.lambd")
    if options.advantages.separators != "auto" and options.steps is None:
        raise ValueError(
            "--algo.advantage.separators needs a PRM, or an estimator of the plugin that reads steps of text"
        )
    if options.advantages.constant_length_norm and args.actor.loss_agg_mode != "seq-mean-token-mean":
        raise ValueError("--algo.advantage.constant_length_norm needs --actor.loss_agg_mode seq-mean-token-mean")
    if options.penalty is not None and PenaltyNeed.GROUP in options.penalty.needs:
        if args.rollout.n_samples_per_prompt < 2:
            raise ValueError(
                f"--length_penalty.kind {options.length.kind} needs --rollout.n_samples_per_prompt above 1"
            )


def _check_online_prm(args: SimpleNamespace, options: PluginOptions) -> None:
    """What a PRM that learns in the loop cannot be combined with, and where it starts."""
    shaping = f"--process_reward.shaping {options.process_reward.shaping}"
    if options.prm is not None:
        raise ValueError(f"{shaping} trains its own PRM: leave out --prm.model_name_or_path and --prm.url")
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
    for option in ("model_name_or_path", "reference"):
        if model := getattr(options.online_prm, option):
            require_checkpoint(f"--online_prm.{option}", model)
