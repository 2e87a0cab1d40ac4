"""What an engine is started with. Apart from the workers, because a command says it before Ray is imported."""

import math
from dataclasses import dataclass, field

from openrlhf_prm.cluster.accelerator import engine_dtype, on_cpu
from openrlhf_prm.options import Options, option, option_fields
from vllm_prm.engines import GPU_MEMORY
from vllm_prm.hosts import require_vllm


@dataclass(frozen=True)
class EngineOptions:
    """What every engine needs. `gpus` are what Ray sets aside per engine; `share` is how much of each of its GPUs'
    memory is an engine's, 1 for a GPU of its own; `max_model_len` None takes the model's own limit. `beside`: further
    checkpoints, of a PRM that reads several, which share in equal parts what is one engine's.
    """

    model: str
    num_engines: int = 1
    gpus: float = 1.0
    dtype: str = "auto"
    seed: int = 0
    max_model_len: int | None = None
    enforce_eager: bool = False
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = 1
    share: float = 1.0
    extra: dict = field(default_factory=dict)
    beside: tuple[str, ...] = ()

    def memory(self) -> float | None:
        """The share of a GPU's memory that an engine takes; None on CPU, where it would be the machine's."""
        if self.gpu_memory_utilization is not None or on_cpu():
            return self.gpu_memory_utilization
        return GPU_MEMORY * self.share

    def engine_args(self, engines: int = 1) -> dict:
        """Keyword arguments for vLLM's engine, or for each of `engines` that share what is one's; options left open are
        left out, so that vLLM's own defaults hold.
        """
        memory = self.memory()
        args = {
            "dtype": engine_dtype(self.dtype),
            "seed": self.seed,
            "max_model_len": self.max_model_len,
            # Compiling costs more than it saves on CPU, where dynamo is switched off besides.
            "enforce_eager": self.enforce_eager or on_cpu(),
            "gpu_memory_utilization": None if memory is None else memory / engines,
            "tensor_parallel_size": self.tensor_parallel_size,
            # The GPUs of an engine are its actor's own, so vLLM needs no Ray placement of its own inside it.
            "distributed_executor_backend": "uni" if self.tensor_parallel_size == 1 else "mp",
            **self.extra,
        }
        return {key: value for key, value in args.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class EngineFlags(Options):
    """What a command line says of engines; `--vllm.*` of the policy's, `--prm.*` of the PRM's."""

    num_engines: int = option(1, "engines that share the work", least=1)
    gpus_per_engine: float = option(1.0, f"share of a GPU per engine, which takes {GPU_MEMORY} of its memory", above=0)
    tensor_parallel_size: int = option(1, "GPUs over which an engine is split", least=1)
    gpu_memory_utilization: float | None = option(
        None, f"share of a GPU's memory per engine; without it, {GPU_MEMORY} x its share", above=0, most=1, kind=float
    )
    dtype: str = option(
        "auto", "data type of weights and computation", choices=("auto", "bfloat16", "float16", "float32")
    )
    max_model_len: int | None = option(None, "context length; shorter than the model's saves memory", least=1, kind=int)
    enforce_eager: bool = option(False, "no CUDA graphs, faster start; always so on CPU")

    def __post_init__(self):
        super().__post_init__()
        share, split = self.gpus_per_engine, self.tensor_parallel_size
        if share > 1:
            raise ValueError(
                f"gpus_per_engine is a share of one GPU, at most 1, got {share:g}; .tensor_parallel_size "
                f"{math.ceil(share)} splits an engine over {math.ceil(share)} GPUs"
            )
        if share < 1 < split and self.takes_whole_gpus:
            raise ValueError(
                f"gpus_per_engine {share:g}: an engine of .tensor_parallel_size {split} takes whole GPUs, leave it out"
            )
        if self.gpu_memory_utilization is not None and self.gpu_memory_utilization > share:
            raise ValueError(
                f"gpu_memory_utilization {self.gpu_memory_utilization:g} is more than the share of a GPU that "
                f".gpus_per_engine gives an engine, {share:g}"
            )

    @property
    def takes_whole_gpus(self) -> bool:
        """Whether an engine that is split over GPUs has them to itself: Ray gives no actor shares of several."""
        return True

    @property
    def memory(self) -> float:
        """The share of a GPU's memory that an engine takes."""
        return GPU_MEMORY * self.gpus_per_engine if self.gpu_memory_utilization is None else self.gpu_memory_utilization

    def engines(self, model: str, seed: int, extra: dict | None = None, beside: tuple[str, ...] = ()) -> EngineOptions:
        """Engines of a model, each on GPUs that Ray sets aside for it. `extra`: further arguments of vLLM; `beside`: of
        a PRM, as `models_beside` tells.

        Raises ValueError where no vLLM could run them.
        """
        require_vllm()
        return EngineOptions(
            model=model,
            num_engines=self.num_engines,
            gpus=self.gpus_per_engine if self.tensor_parallel_size == 1 else self.tensor_parallel_size,
            dtype=self.dtype,
            seed=seed,
            max_model_len=self.max_model_len,
            enforce_eager=self.enforce_eager,
            gpu_memory_utilization=self.gpu_memory_utilization,
            tensor_parallel_size=self.tensor_parallel_size,
            share=self.gpus_per_engine,
            extra=extra or {},
            beside=beside,
        )


@dataclass(frozen=True, kw_only=True)
class ServerFlags(Options):
    """What a command line says of servers of a PRM; `--prm.*`."""

    url: tuple[str, ...] = option((), "addresses of running `vllm-prm serve`, instead of PRM engines of our own")
    api_key_env: str | None = option(
        None,
        "environment variable with the servers' API key, or with _FILE behind its name that of a file with it",
        kind=str,
        read_with="url",
    )
    patience_s: float = option(
        300.0, "seconds that all servers may be away or overloaded before the run ends", least=0, read_with="url"
    )
    answer_s: float = option(120.0, "seconds that a server may take for one solution", above=0, read_with="url")


SERVER_FLAGS = tuple(field.name for field in option_fields(ServerFlags))
