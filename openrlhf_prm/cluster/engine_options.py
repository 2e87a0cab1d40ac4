"""What an engine is started with. Apart from the workers, because a command says it before Ray is imported."""

from dataclasses import dataclass, field

from openrlhf_prm.cluster.accelerator import engine_dtype, on_cpu


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
