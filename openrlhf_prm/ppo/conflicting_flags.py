"""Options that cancel each other: one makes the other's condition impossible, takes its effect out again, or leaves
nothing to learn from. None of them fails by itself, so a run would only learn something else than was asked for.
"""

from collections.abc import Iterator
from types import SimpleNamespace

from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.advantages.host_baselines import HOST_BASELINES
from openrlhf_prm.ppo.plugin_options import PluginOptions, generation_limit


def refuse_conflicts(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError, naming both flags, for the first pair that cancels. `args`: the host's namespace."""
    for check in (_shaping, _weights, _what_is_left, _length_penalty, _host_penalties, _branches, _groups):
        for message in check(args, options):
            raise ValueError(message)


def _shaping(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """A shaping that acts on groups which sampling throws away, or that has nothing to choose from."""
    if options.shaping is None:
        return
    flag = f"--process_reward.shaping {options.process_reward.shaping}"
    if reason := options.shaping.conflict(args.rollout.n_samples_per_prompt):
        yield f"--process_reward.{reason}"
    if args.algo.dynamic_filtering_enable and options.shaping.groups:
        low, high = args.algo.dynamic_filtering_range
        # The host keeps groups whose mean score lies strictly within the range.
        thrown_away = {verdict for verdict, mean in (("wrong", 0.0), ("right", 1.0)) if not low < mean < high}
        if options.shaping.groups <= thrown_away:
            yield (
                f"{flag} acts only on groups that are all {' or all '.join(sorted(options.shaping.groups))}, which "
                f"--algo.dynamic_filtering_enable throws away; widen --algo.dynamic_filtering_range {low:g} {high:g}"
            )


def _weights(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """Weights of process rewards that something takes out again."""
    process, estimator = options.process_reward, options.estimator
    if process is None:
        return
    given = vars(args.process_reward)
    weights = ("normalise", "warmup_steps", "baseline_of")
    if not options.shaping.pays:
        for name in (*weights, *(("coef",) if process.coef else ())):
            if given.get(name):
                yield f"--process_reward.{name} has no effect: {process.shaping} hands on no process rewards"
    if not process.coef:
        for name in weights:
            if given.get(name):
                yield f"--process_reward.{name} has no effect with --process_reward.coef 0"
    if process.normalise and estimator is None and HOST_BASELINES[args.algo.advantage.estimator].divides:
        yield (
            f"--process_reward.normalise: {args.algo.advantage.estimator} divides process rewards by their deviation "
            "already"
        )
    if estimator is not None and (cause := estimator.rescales_process_rewards):
        for name in ("coef", "normalise", "warmup_steps"):
            if given.get(name):
                yield f"--process_reward.{name}: {cause} takes weights out again"


def _what_is_left(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """No outcome, and nothing in its place."""
    outcome, process = options.outcome, options.process_reward
    if outcome.outcome_coef:
        return
    paid = process is not None and process.coef and options.shaping.pays
    reads = EstimatorNeed.STEP_REWARDS in options.estimator_needs
    penalties = (
        *(outcome.truncation_penalty, outcome.format_penalty, options.diversity.coef),
        options.penalty is not None and options.penalty.pays and options.length.coef,
        options.credit is not None and options.credit.turn_rewards,
    )
    if not (paid and reads) and not any(penalties):
        yield "--process_reward.outcome_coef 0 leaves nothing to learn from: no process rewards and no penalties"


def _length_penalty(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """A length's scale that responses cannot reach, and a choice of responses that takes no weight."""
    if options.penalty is None:
        return
    kind, process = options.length.kind, options.process_reward
    if not options.penalty.pays:
        for name in ("coef", "warmup_steps"):
            if getattr(args.length_penalty, name) is not None:
                yield f"--length_penalty.{name} has no effect: {kind} chooses responses and penalises none"
        if process is not None and not options.shaping.pays:
            yield f"--length_penalty.kind {kind} and --process_reward.shaping {process.shaping} both choose: give one"
    limit = generation_limit(args)
    if reason := options.penalty.conflict(limit, args.rollout.n_samples_per_prompt):
        yield f"--length_penalty.{reason}"


def _host_penalties(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """What the host does to rewards after ours."""
    outcome, clip = options.outcome, args.reward.clip_range
    if outcome.truncation_penalty and args.reward.stop_properly_penalty_coef is not None:
        yield (
            "--process_reward.truncation_penalty: --reward.stop_properly_penalty_coef sets or scales the rewards of "
            "cut responses afterwards; give one of them"
        )
    if clip and options.estimator is not None and clip[0] >= 0:
        for name in ("truncation_penalty", "format_penalty"):
            if getattr(outcome, name):
                yield f"--process_reward.{name}: --reward.clip_range {clip[0]:g} {clip[1]:g} cuts off what is below 0"


def _branches(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """Early stopping of branches that never happens, or always."""
    vine = options.vine
    if vine is None or vine.values != "rollouts" or not vine.half_width:
        return
    rounds = range(vine.k_min, vine.k, vine.k_min)
    if not any(not vine.goes_on(right, count) for count in rounds for right in range(count + 1)):
        yield (
            f"--vine.half_width {vine.half_width:g} stops nowhere before --vine.k {vine.k} branches: raise it, or "
            f"lower --vine.k_min {vine.k_min}"
        )
    elif all(not vine.goes_on(right, vine.k_min) for right in range(vine.k_min + 1)):
        yield (
            f"--vine.half_width {vine.half_width:g} always stops at --vine.k_min {vine.k_min} branches: lower it, or "
            "give --vine.k alone"
        )


def _groups(args: SimpleNamespace, options: PluginOptions) -> Iterator[str]:
    """Comparisons within groups whose responses are one or all the same."""
    if options.diversity.coef and args.rollout.n_samples_per_prompt < 2:
        yield "--diversity.coef needs --rollout.n_samples_per_prompt above 1"
    if EstimatorNeed.FORKS in options.estimator_needs:
        flag = f"--algo.advantage.estimator {args.algo.advantage.estimator}"
        if options.shaping is not None and not options.shaping.pays:
            yield f"{flag} needs whole groups: leave out --process_reward.shaping {options.process_reward.shaping}"
        if options.penalty is not None and not options.penalty.pays:
            yield f"{flag} needs whole groups: leave out --length_penalty.kind {options.length.kind}"
    if options.estimator is not None and EstimatorNeed.GROUP in options.estimator.needs:
        if args.rollout.temperature == 0:
            yield (
                f"--algo.advantage.estimator {args.algo.advantage.estimator} compares responses of a question, which "
                "--rollout.temperature 0 makes all the same"
            )
