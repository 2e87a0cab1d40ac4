"""What engines cost that tests start in their own process, which has imported PyTorch, transformers and vLLM."""

import atexit
import gc

_freeze, _unfreeze = gc.freeze, gc.unfreeze


def make_ready() -> None:
    """Imported modules are kept out of garbage collection, which vLLM asks for when an engine starts and three times
    when it ends: half a second each time, for what is never freed. Engines no longer freeze and unfreeze all there is.

    A model's class is looked at here instead of in a process that imports vLLM once more, which vLLM starts so that
    none but the engine touches CUDA.
    """
    import vllm.model_executor.models.registry as registry
    import vllm.v1.engine.core
    import vllm.v1.worker.cpu_worker  # noqa: F401

    registry._run_in_subprocess = lambda look: look()
    gc.freeze = gc.unfreeze = lambda: None
    gc.collect()
    _freeze()
    atexit.register(_unfreeze)  # or Triton's bindings tell of leaks
