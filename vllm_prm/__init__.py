"""Step rewards from process reward models (PRMs) on any vLLM server.

`register` is the entry point of the group `vllm.general_plugins`. vLLM calls it in every process it starts, so this
module imports nothing heavy and hands vLLM lazy `"module:Class"` strings only.

PyTorch's `cuda.is_available()` asks the CUDA driver, and a process that has asked can fork no engine: "Cannot
re-initialize CUDA in forked subprocess". With PYTORCH_NVML_BASED_CUDA_CHECK it asks NVML. vLLM sets that variable when
it is imported, which is after transformers or DeepSpeed may have asked; this package is imported before them.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def register() -> None:
    """Register the step-reward architectures with vLLM; calling it again changes nothing, errors propagate."""
    from vllm_prm.architectures import register_architectures
    from vllm_prm.parent_watch import follow_parent

    follow_parent()
    register_architectures()
