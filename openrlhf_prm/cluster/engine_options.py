"""What an engine is started with. Apart from the workers, because a command says it before Ray is imported."""

from dataclasses import dataclass, field

from openrlhf_prm.cluster.accelerator import engine_dtype, on_cpu
from openrlhf_prm.options import Options, option


@dataclass(frozen=True)
class EngineOptions:
    """What every engine needs. `gpus` is the share of a GPU per engine; `max_model_len` None takes the model's own
    limit.
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
    extra: dict = field(default_factory=dict)

    def engine_args(self) -> dict:
        """Keyword arguments for vLLM's engine; options left open are left out, so that vLLM's own defaults hold."""
        args = {
            "dtype": engine_dtype(self.dtype),
            "seed": self.seed,
            "max_model_len": self.max_model_len,
            # Compiling costs more than it saves on CPU, where dynamo is switched off besides.
            "enforce_eager": self.enforce_eager or on_cpu(),
            "gpu_memory_utilization": self.gpu_memory_utilization,
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
    gpus_per_engine: float = option(1.0, "GPUs that Ray sets aside per engine", least=0)
    dtype: str = option("auto", "data type of weights and computation")
    enforce_eager: bool = option(False, "no CUDA graphs, faster start; always so on CPU")
    gpu_memory_utilization: float | None = option(None, "share of GPU memory per engine", above=0, most=1, kind=float)
    max_model_len: int | None = option(None, "context length; shorter than the model's saves memory", least=1, kind=int)

    def engines(self, model: str, seed: int, tensor_parallel_size: int | None = None) -> EngineOptions:
        """Engines of a model. Without `tensor_parallel_size` an engine takes all of its whole GPUs, with it at least so
        many.
        """
        if tensor_parallel_size is None:
            tensor_parallel_size = 1 if on_cpu() else max(1, int(self.gpus_per_engine))
        return EngineOptions(
            model=model,
            num_engines=self.num_engines,
            gpus=self.gpus_per_engine if on_cpu() else max(self.gpus_per_engine, tensor_parallel_size),
            dtype=self.dtype,
            seed=seed,
            max_model_len=self.max_model_len,
            enforce_eager=self.enforce_eager,
            gpu_memory_utilization=self.gpu_memory_utilization,
            tensor_parallel_size=tensor_parallel_size,
        )
