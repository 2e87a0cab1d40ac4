"""A flag that nothing would read is an error: who gives it expects something of it.

What a run reads follows from `PluginOptions`: a group that is None there is not read, nor is an option that its group
says it does not look at (`Options.unread`), nor an option of another algorithm than the chosen one.
"""

from collections.abc import Iterator
from functools import reduce
from types import SimpleNamespace

from openrlhf_prm.advantages.estimator import EstimatorNeed
from openrlhf_prm.options import option_fields
from openrlhf_prm.ppo.algorithm_choices import ESTIMATOR, PENALTY, SHAPING
from openrlhf_prm.ppo.flags import A_PRM, CHOICES, GROUPS, HOST_ESTIMATOR_FLAGS, TITLES
from openrlhf_prm.ppo.plugin_options import PluginOptions
from openrlhf_prm.rewards.shaping import ShapingNeed


def refuse_unread_flags(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError for the first flag that was given and that this run does not read."""
    for prefix in TITLES:
        namespace = reduce(getattr, prefix.split("."), args)
        read, unread = _read_of(options, prefix)
        for name, reason in _reasons(args, options, prefix):
            if getattr(namespace, name, None) is None:
                continue
            if name in unread:
                raise ValueError(f"--{prefix}.{name} needs {unread[name]}")
            if name not in read:
                raise ValueError(f"--{prefix}.{name} {reason}")


def _read_of(options: PluginOptions, prefix: str) -> tuple[set[str], dict[str, str]]:
    """The options under a prefix that this run has built, and those of them that it does not look at, with what they
    need.
    """
    read: set[str] = set()
    unread: dict[str, str] = {}
    fields = [group.field for group in GROUPS if group.prefix == prefix]
    fields += [field for field, choice in CHOICES.items() if choice.prefix == prefix]
    for built in (getattr(options, field) for field in fields):
        if built is not None:
            read |= {option.name for option in option_fields(type(built))}
            unread |= built.unread(prefix)
    if prefix == "process_reward" and options.shaping is not None:
        if options.shaping.needs & {ShapingNeed.PROBABILITY, ShapingNeed.LOG_RATIOS}:
            unread["score_scale"] = "a --process_reward.shaping that takes scores on either scale"
    if prefix == "credit":
        if options.prm is None:
            unread["hide_observations"] = A_PRM
        reads = options.shaping is not None or options.estimator is not None
        if not reads or EstimatorNeed.SEGMENTS in options.estimator_needs:
            unread["unit"] = "a PRM, or an estimator of the plugin that reads steps"
    return read, unread


def _reasons(args: SimpleNamespace, options: PluginOptions, prefix: str) -> Iterator[tuple[str, str]]:
    """The options under a prefix, with why a run does not read them where it has not built them."""
    for group in GROUPS:
        if group.prefix == prefix:
            yield from ((option.name, f"needs {group.needs}") for option in option_fields(group.options))
    readers = {
        "shaping": f"{SHAPING.flag} {options.process_reward.shaping}" if options.shaping else "a run without a PRM",
        "penalty": f"{PENALTY.flag} {options.length.kind}" if options.penalty else f"a run without {PENALTY.flag}",
        "estimator": f"{ESTIMATOR.flag} {args.algo.advantage.estimator}",  # of the host where it is not ours
    }
    for field, choice in CHOICES.items():
        if choice.prefix != prefix:
            continue
        for owner, algorithm in choice.registry.items():
            for option in option_fields(algorithm):
                if option.name not in HOST_ESTIMATOR_FLAGS:
                    yield option.name, f"is an option of {owner}, which {readers[field]} does not read"
