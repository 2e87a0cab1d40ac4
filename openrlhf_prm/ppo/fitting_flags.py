"""Flags with which a PPO run fits, for one that does not: the user's own, as few of them changed as will do."""

import copy
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

from openrlhf_prm.cluster.placement import DoesNotFit, Node, place
from openrlhf_prm.ppo.demands import check_batches, demands_of, has_critic, has_reward_model
from openrlhf_prm.ppo.plugin_options import PluginOptions

Change = dict[str, int | bool]
"""Flag -> its new value."""


def fitting_flags(args: SimpleNamespace, options: PluginOptions, nodes: Sequence[Node]) -> str:
    """The flags to change, as a command line takes them; "" where no try fits.

    Tried in this order: smaller models of one size, with policy and reference on the same GPUs where that lets them
    have more; then fewer engines; then everything on the same GPUs, asleep in turn.
    """
    for change in _changes(args, nodes):
        try:
            changed = _changed(args, change)
            check_batches(changed)
            place(demands_of(changed, options), nodes)
        except (DoesNotFit, ValueError):
            continue
        return " ".join(f"--{flag}" + ("" if value is True else f" {value}") for flag, value in change.items())
    return ""


def _changed(args: SimpleNamespace, change: Change) -> SimpleNamespace:
    changed = copy.copy(args)
    for flag, value in change.items():
        group, _, name = flag.partition(".")
        setattr(changed, group, SimpleNamespace(**{**vars(getattr(changed, group)), name: value}))
    return changed


def _changes(args: SimpleNamespace, nodes: Sequence[Node]) -> Iterator[Change]:
    largest = max((node.gpus for node in nodes), default=0)
    machines = sum(node.gpus == largest for node in nodes)
    sizes = [(count, gpus) for count in _halved(machines) for gpus in _halved(largest)]
    sizes.sort(key=lambda size: -size[0] * size[1])
    engines = _halved(args.vllm.num_engines or 0) or [0]
    if not (args.train.colocate_all and not args.train.async_enable):
        layouts: list[Change] = [{}]
        if args.algo.kl.init_coef > 0 and not (args.train.colocate_actor_ref or args.train.colocate_all):
            layouts.append({"train.colocate_actor_ref": True})
        for count in engines:
            for size in sizes:
                for together in layouts:
                    yield {**together, **_models(args, *size), **_engines(args, count)}
    if not args.train.async_enable and args.vllm.num_engines:
        for count, gpus in sizes:
            asleep = {"train.colocate_all": True, "vllm.enable_sleep": True, "ds.enable_sleep": True}
            ranks = args.vllm.tensor_parallel_size
            if count * gpus % ranks == 0:
                yield {**asleep, **_models(args, count, gpus), **_engines(args, count * gpus // ranks)}


def _halved(number: int) -> list[int]:
    """`number`, then the powers of two below it, falling."""
    powers = [1 << power for power in range(number.bit_length()) if 1 << power < number]
    return [number, *reversed(powers)] if number else []


def _models(args: SimpleNamespace, nodes: int, gpus: int) -> Change:
    """All models of the host on as many nodes and GPUs."""
    names = ["actor"]
    names += ["ref"] if args.algo.kl.init_coef > 0 else []
    names += ["critic"] if has_critic(args) else []
    # The host compares it with the critic even where no model judges.
    names += ["reward"] if has_reward_model(args) or (has_critic(args) and args.train.colocate_critic_reward) else []
    sizes = {f"{name}.num_nodes": nodes for name in names} | {f"{name}.num_gpus_per_node": gpus for name in names}
    return {flag: value for flag, value in sizes.items() if _value(args, flag) != value}


def _engines(args: SimpleNamespace, count: int) -> Change:
    return {"vllm.num_engines": count} if count != args.vllm.num_engines and count else {}


def _value(args: SimpleNamespace, flag: str) -> int | bool:
    group, _, name = flag.partition(".")
    return getattr(getattr(args, group), name)
