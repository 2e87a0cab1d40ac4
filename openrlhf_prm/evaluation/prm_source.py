"""Where a benchmark's step scores come from: a checkpoint in an engine of this process, or servers that run."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.cluster.accelerator import on_cpu
from openrlhf_prm.cluster.checks import models_beside, require_checkpoint, require_family
from openrlhf_prm.cluster.engine_options import EngineOptions, ServerFlags
from openrlhf_prm.cluster.remote_scorer import RemoteScorer, check_servers
from openrlhf_prm.options import option
from vllm_prm.durable_file import checkpoint_state
from vllm_prm.hosts import require_vllm
from vllm_prm.json_flags import json_object


@dataclass(frozen=True, kw_only=True)
class PrmSource(ServerFlags):
    """One of `model_name_or_path` and `url`; the other options but the key are those of an engine."""

    model_name_or_path: str | None = option(None, "checkpoint of the PRM", kind=str)
    family: str | None = option(
        None,
        "PRM family or FILE.py:Class, where the checkpoint does not tell",
        kind=str,
        read_with="model_name_or_path",
    )
    family_options: str | None = option(
        None, "options of the family as a JSON object", kind=str, read_with="model_name_or_path"
    )
    dtype: str = option("auto", "data type of weights and computation", read_with="model_name_or_path")
    max_model_len: int | None = option(
        None,
        "context length; shorter than the model's saves memory",
        least=1,
        kind=int,
        read_with="model_name_or_path",
    )
    tensor_parallel_size: int = option(1, "GPUs over which the PRM is split", least=1, read_with="model_name_or_path")
    gpu_memory_utilization: float | None = option(
        None, "share of GPU memory", above=0, most=1, kind=float, read_with="model_name_or_path"
    )
    enforce_eager: bool = option(
        False, "no CUDA graphs, faster start; always so on CPU", read_with="model_name_or_path"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family_options is not None:
            json_object("family_options", self.family_options)

    @property
    def name(self) -> str:
        """The checkpoint or the addresses."""
        return self.model_name_or_path or " ".join(self.url)

    def check(self) -> None:
        """Raises ValueError naming the flag where there is no such PRM, as far as can be told without an engine, and
        where no vLLM could run it.
        """
        if bool(self.model_name_or_path) == bool(self.url):
            raise ValueError("give one of --prm.model_name_or_path and --prm.url")
        check_servers(self, self.model_name_or_path)
        if not self.url:
            require_checkpoint("--prm.model_name_or_path", self.model_name_or_path)
            require_vllm()
        require_family(self.family)
        self.models_beside()

    def settings(self) -> dict:
        """What the scores depend on; a file of scores may only be continued with the same."""
        return {
            "--prm.model_name_or_path": self.model_name_or_path,
            "state of the checkpoint": self.model_name_or_path and checkpoint_state(self.model_name_or_path),
            "--prm.url": " ".join(self.url) or None,
            "--prm.family": self.family,
            "--prm.family_options": self._family_options(),
            "--prm.dtype": self.dtype,
            "--prm.max_model_len": self.max_model_len,
        }

    @property
    def own_engines(self) -> dict[str, EngineOptions]:
        """The one of this process, by the prefix of its flags; none where servers are asked."""
        if self.url:
            return {}
        engine = EngineOptions(
            self.model_name_or_path,
            gpus=self.tensor_parallel_size,
            dtype=self.dtype,
            gpu_memory_utilization=self.gpu_memory_utilization,
            tensor_parallel_size=self.tensor_parallel_size,
            max_model_len=self.max_model_len,
            enforce_eager=self.enforce_eager,
            beside=self.models_beside(),
        )
        return {"prm": engine}

    def models_beside(self) -> tuple[str, ...]:
        """Checkpoints that the PRM reads beside its own."""
        return () if self.url else models_beside(self.model_name_or_path, self.family, self._family_options())

    def scorer(self) -> Any:
        """A `vllm_prm.scorer.StepScorer`, whose engine it starts, or what stands for it. Raises ValueError where this
        machine's GPUs cannot hold the PRM.
        """
        from openrlhf_prm.cluster.engine_preflight import require_shares
        from openrlhf_prm.cluster.nodes import local_gpu_gib
        from vllm_prm.scorer import StepScorer

        if self.url:
            return _ServedScorer(RemoteScorer(self))
        engines = self.own_engines
        if not on_cpu():
            require_shares(engines, local_gpu_gib(), in_process=True)
        options = engines["prm"]
        args = options.engine_args(1 + len(options.beside))
        return StepScorer.from_pretrained(
            self.model_name_or_path, self.family, family_options=self._family_options(), **args
        )

    def _family_options(self) -> dict | None:
        return None if self.family_options is None else json_object("--prm.family_options", self.family_options)


class _ServedScorer:
    """Of a `StepScorer` what a benchmark asks for, from servers that share the solutions."""

    def __init__(self, servers: RemoteScorer):
        self.servers = servers

    def score(self, solutions: Sequence[tuple[str, list[str]]], *, truncate: bool) -> list[list[float | None]]:
        async def together() -> list[list[float | None]]:
            return await asyncio.gather(*(self.servers.score(*solution, truncate) for solution in solutions))

        return asyncio.run(together())

    def shutdown(self) -> None:
        """Connections end with the event loop of a call."""
