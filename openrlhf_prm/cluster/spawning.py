"""Engines as Ray actors: where they are placed, in what order they start, and what they see of their node's GPUs."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from openrlhf_prm.cluster.absence import free
from openrlhf_prm.cluster.engine_options import EngineOptions

logger = logging.getLogger(__name__)
_PATIENCE_S = 120
_GPUS_ARE_NOT_SET = tuple(f"RAY_EXPERIMENTAL_NOSET_{name}_VISIBLE_DEVICES" for name in ("CUDA", "ROCR", "HIP"))


@dataclass(frozen=True)
class Place:
    """Where an engine lives that shares its GPUs with others: bundles of a placement group, one per GPU that it is
    split over, of whose GPU and CPU it takes `share` as Ray counts them.
    """

    group: Any
    bundles: tuple[int, ...]
    share: float

    @property
    def split(self) -> bool:
        """Whether the engine has a worker in each of several bundles; Ray places those, and the actor holds no GPU."""
        return len(self.bundles) > 1

    def actor_options(self) -> dict:
        """What Ray is told of the engine's actor."""
        share = 0 if self.split else self.share
        where = PlacementGroupSchedulingStrategy(self.group, self.bundles[0], placement_group_capture_child_tasks=True)
        return {"num_cpus": share, "num_gpus": share, "scheduling_strategy": where}


def spawn(
    worker_class: type,
    name: str,
    options: EngineOptions,
    *args: Any,
    places: Sequence[Place] | None = None,
    **actor_options: Any,
) -> list:
    """`options.num_engines` actors, once all are ready. An actor is built with the options, `args` and, where there are
    places, its own.

    Engines that may meet on a GPU start one after the other: each looks at the memory that is free.
    """
    remote = ray.remote(worker_class)
    options = replace(options, model=found_from_anywhere(options.model))
    together = places is not None or options.gpus >= 1 or not options.gpus
    workers: list = []
    for index in range(options.num_engines):
        if places is None:
            where, own = {"num_cpus": 1, "num_gpus": options.gpus}, args
        else:
            where, own = places[index].actor_options(), (*args, places[index])
        workers.append(
            remote.options(**where, **actor_options, name=f"openrlhf_prm_{name}_{index}").remote(options, *own)
        )
        if not together:
            until_ready(workers[-1:], name, options.gpus)
    until_ready(workers, name, options.gpus)
    return workers


def until_ready(workers: Sequence, name: str, gpus: float) -> None:
    """Returns when the workers are ready, and says meanwhile what for; their errors are raised."""
    ready = [worker.ready.remote() for worker in workers]
    while waiting := ray.wait(ready, num_returns=len(ready), timeout=_PATIENCE_S)[1]:
        logger.warning(
            f"still waiting for {len(waiting)} of {len(ready)} {name} workers, which take {gpus:g} GPUs each; {free()}"
        )
    ray.get(ready)


def found_from_anywhere(model: str) -> str:
    """A checkpoint as an actor finds it, which may work in another folder; a hub id stays as it is."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def see_own_gpus(place: Place | None = None) -> None:
    """In an actor, before CUDA is touched: lets vLLM see the GPUs that Ray gave this actor, and no other.

    Ray does that itself unless one of RAY_EXPERIMENTAL_NOSET_*_VISIBLE_DEVICES is set; then every actor of a node would
    take its first GPU. An engine that is split over bundles has its workers placed by vLLM, which is told where.
    """
    if place is not None and place.split:
        for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
            os.environ.pop(name, None)
        os.environ["VLLM_RAY_PER_WORKER_GPUS"] = str(place.share)
        os.environ["VLLM_RAY_BUNDLE_INDICES"] = ",".join(map(str, place.bundles))
        os.environ.setdefault("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    elif any(os.environ.get(name) for name in _GPUS_ARE_NOT_SET) and (given := ray.get_gpu_ids()):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, given))


def end_without_engine(error: BaseException) -> None:
    """Ends this actor where `error` says that its engine died: it is of no use, and Ray starts another in its place."""
    from vllm.v1.engine.exceptions import EngineDeadError

    if isinstance(error, EngineDeadError):
        logger.error("the vLLM engine of this actor died, so the actor ends; Ray starts it again")
        os._exit(1)
