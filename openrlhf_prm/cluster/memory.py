"""Memory of a GPU, by what takes it. Sizes in bytes until they are shown, in GiB.

Trained models are DeepSpeed 0.19.6's, as the host configures it: n parameters of b bytes over N data-parallel ranks,

    weights      b n                         with ZeRO-3  b n / N
    gradients    b n; ZeRO-1 keeps them whole between micro-batches; from ZeRO-2 on  b n / N
    optimizer    8 n of Adam's moments, 4 n of float32 weights where b < 4; from ZeRO-1 on  / N; none with offload
    buffers      500 million gradients on their way (`reduce_bucket_size`) during the backward pass from ZeRO-1 on, with
                 ZeRO-3 always, and there up to a billion gathered weights; 4 n / N of float32 gradients for an update

Held against DeepSpeed's own tensors in `tests/stack/test_memory.py`. Activations are rehearsed (`cluster.rehearsal`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
REDUCE_BUCKET = 500_000_000
LIVE_PARAMETERS = 1_000_000_000
PER_PROCESS = GIB
"""Taken for a process's CUDA context, NCCL's buffers and what the allocator cannot use: an assumption."""

Parts = Mapping[str, float]
"""What takes memory -> bytes."""


@dataclass(frozen=True)
class Use:
    """Memory of one process of a role: between its turns, and at its peak. `engine`: of vLLM, which takes its share
    from the start; `models`: weights of each model in it. `learns`: a model that is trained. `sleeps`: an engine that
    gives everything back while it has nothing to do, a model that keeps only its weights.
    """

    resting: Parts
    working: Parts
    engine: bool = False
    models: tuple[float, ...] = ()
    learns: bool = False
    sleeps: bool = False

    def at_rest(self) -> Parts:
        if self.engine:
            return {} if self.sleeps else self.working
        return {"weights": self.resting["weights"]} if self.sleeps else self.resting


@dataclass(frozen=True)
class GpuUse:
    """One GPU at its fullest: the moment, and by role what takes how much."""

    moment: str
    parts: Mapping[str, Parts]
    processes: int = 1

    @property
    def total(self) -> float:
        return sum(sum(parts.values()) for parts in self.parts.values()) + self.processes * PER_PROCESS

    def certain(self) -> "GpuUse":
        """Without what is estimated or assumed: buffers, activations, what every process takes."""
        estimated = ("buffers", "activations")
        sure = {
            role: {part: size for part, size in parts.items() if part not in estimated}
            for role, parts in self.parts.items()
        }
        return GpuUse(self.moment, sure, processes=0)


def trained(
    parameters: int,
    dtype: str,
    ranks: int,
    stage: int,
    *,
    offload: bool = False,
    accumulates: bool = True,
    trainable: int | None = None,
    activations: float = 0.0,
    sleeps: bool = False,
) -> Use:
    """A model with Adam. trainable: parameters that are updated, all without it. accumulates: several micro-batches
    make an update.
    """
    width, learnt = BYTES[dtype], parameters if trainable is None else trainable
    share = 1 / ranks if stage >= 1 else 1.0
    weights = width * parameters * (1 / ranks if stage == 3 else 1)
    optimizer = 0.0 if offload else (8 + (4 if width < 4 or stage >= 1 else 0)) * learnt * share
    whole_gradients = stage == 0 or (stage == 1 and accumulates)
    gradients = width * learnt * (1.0 if whole_gradients else share)
    gradients = 0.0 if offload and stage >= 2 else gradients
    bucket = REDUCE_BUCKET * width if stage >= 1 else 0.0
    gathered = width * min(parameters, LIVE_PARAMETERS) if stage == 3 else 0.0
    float32 = 0.0 if offload or (stage == 0 and width == 4) else 4 * learnt * share
    kept = {"weights": weights, "optimizer": optimizer}
    if stage == 3:
        kept |= {"gradients": gradients, "buffers": bucket}
    backward = {**kept, "gradients": gradients, "buffers": bucket + gathered, "activations": activations}
    update = {**kept, "gradients": gradients, "buffers": (bucket if stage == 3 else 0.0) + float32}
    working = max(backward, update, key=lambda parts: sum(parts.values()))
    return Use(kept, working, learns=True, sleeps=sleeps)


def frozen(parameters: int, dtype: str, ranks: int, stage: int, *, offload: bool, activations: float) -> Use:
    """A model that only judges. DeepSpeed shares it out, or offloads it, with ZeRO-3 alone."""
    width = BYTES[dtype]
    weights = width * parameters
    if stage == 3:
        weights = 0.0 if offload else weights / ranks
    gathered = width * min(parameters, LIVE_PARAMETERS) if stage == 3 else 0.0
    parts = {"weights": weights}
    return Use(parts, {**parts, "buffers": gathered, "activations": activations})


def engine(models: Sequence[float], taken: float | None, sleeps: bool = False) -> Use:
    """A vLLM engine on one of its GPUs, or those of a PRM of several models. models: bytes of their weights. taken:
    what they may take of the GPU, in equal parts; caches have what weights leave. None where that is not known.
    """
    parts = {"weights": sum(models)}
    if taken is not None:
        parts["cache"] = sum(max(0.0, taken / len(models) - weights) for weights in models)
    return Use(parts, parts, engine=True, models=tuple(models), sleeps=sleeps)


def fullest(uses: Mapping[str, Use], together: bool) -> GpuUse:
    """The fullest moment of a GPU that these roles share: while responses are written, while they are judged, while
    models learn. together: those learn at the same time, not in turn.
    """
    engines = [name for name, use in uses.items() if use.engine]
    learners = [name for name, use in uses.items() if use.learns]
    judges = [name for name in uses if name not in engines and name not in learners]
    turns = [learners] if together else [[name] for name in learners]
    moments = {"responses are written": engines, "responses are judged": judges}
    moments |= {f"{' and '.join(turn)} learn{'s' if len(turn) == 1 else ''}": turn for turn in turns}
    found = [
        GpuUse(moment, {name: use.working if name in busy else use.at_rest() for name, use in uses.items()}, len(uses))
        for moment, busy in moments.items()
        if busy
    ]
    return max(found, key=lambda use: use.total)


def require_share(name: str, flag: str, use: Use, share: float, gib: float, sizes: Any) -> None:
    """Raises ValueError where an engine's share of a GPU cannot hold its model, or a part of it one of its models."""
    count, largest = len(use.models), max(use.models)
    part = share / count
    if largest >= part * gib * GIB:
        shared = f", for each of {count} models" if count > 1 else ""
        raise ValueError(
            f"{flag}: an engine may take {part * gib:.1f} GiB of a GPU ({part:.2g} of {gib:g}{shared}), less than its "
            f"model's {largest / GIB:.1f}; raise it, or --{name}.tensor_parallel_size from {sizes.tensor_parallel_size}"
        )


def shown(size: float) -> str:
    """In GiB, to the tenth above."""
    return f"{math.ceil(size / GIB * 10) / 10:.1f}"
