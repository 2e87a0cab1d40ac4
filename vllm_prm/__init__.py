"""Step rewards from process reward models (PRMs) on any vLLM server.

`register` is the entry point of the group `vllm.general_plugins`. vLLM calls it in every process it starts, so this
module imports nothing heavy and hands vLLM lazy `"module:Class"` strings only.

PyTorch's `cuda.is_available()` asks the CUDA driver, and a process that has asked can fork no engine: "Cannot
re-initialize CUDA in forked subprocess". With PYTORCH_NVML_BASED_CUDA_CHECK it asks NVML. vLLM sets that variable when
it is imported, which is after transformers or DeepSpeed may have asked; this package is imported before them.
"""

import os

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

STEP_REWARD_MODELS = {
    "LlamaForStepReward": "vllm_prm.models.causal_lm:LlamaForStepReward",
    "MistralForStepReward": "vllm_prm.models.causal_lm:MistralForStepReward",
    "Qwen2ForStepReward": "vllm_prm.models.causal_lm:Qwen2ForStepReward",
    "Qwen3ForStepReward": "vllm_prm.models.causal_lm:Qwen3ForStepReward",
}
"""vLLM architecture -> class that scores steps with the language-model head of a causal LM."""

STEP_LOG_PROB_MODELS = {
    f"{backbone}ForStepLogProbs": f"vllm_prm.models.step_log_probs:{backbone}ForStepLogProbs"
    for backbone in ("Llama", "Mistral", "Qwen2", "Qwen3")
}
"""vLLM architecture -> class that sums the log-probabilities of each step's tokens under a causal LM."""


def register() -> None:
    """Register the step-reward architectures with vLLM; calling it again changes nothing, errors propagate."""
    from vllm import ModelRegistry

    from vllm_prm.parent_watch import follow_parent

    follow_parent()
    known = ModelRegistry.get_supported_archs()
    for architecture, location in {**STEP_REWARD_MODELS, **STEP_LOG_PROB_MODELS}.items():
        if architecture not in known:
            ModelRegistry.register_model(architecture, location)
