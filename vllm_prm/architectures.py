"""Which vLLM architecture scores steps on a checkpoint's backbone. Names only: no model code is imported.

Every architecture of vLLM's registry that generates text has two of ours beside it, made when vLLM asks for the class:
`Gemma2ForCausalLM` gives `Gemma2ForStepReward` and `Gemma2ForStepLogProbs`. One that vLLM does not know and runs with
transformers' own code is `TransformersForStepReward`.
"""

import importlib.util
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

STEP_REWARD, STEP_LOG_PROBS = "ForStepReward", "ForStepLogProbs"
MODULES = {STEP_REWARD: "vllm_prm.models.step_reward", STEP_LOG_PROBS: "vllm_prm.models.step_log_probs"}
"""Ending of an architecture -> module whose attributes are the classes of that ending."""

GENERATES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ENDING = re.compile(r"(LMHeadModel|For[A-Z]\w*|Model)$")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def scores_steps(architecture: str) -> bool:
    """Whether `architecture` is one of ours."""
    return architecture.endswith(tuple(MODULES))


def step_architectures(known: Iterable[str]) -> dict[str, str]:
    """Our architecture -> its host, for all hosts among the `known` ones."""
    hosts = [name for name in known if name.endswith(GENERATES)]
    return {_named(host, ending): host for host in hosts for ending in MODULES}


def register_architectures() -> None:
    """Tell vLLM of our architectures, and its adjustments to a model's config of their hosts; again changes nothing."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    known = set(ModelRegistry.get_supported_archs())
    for name, host in step_architectures(known).items():
        if name not in known:
            ending = next(ending for ending in MODULES if name.endswith(ending))
            ModelRegistry.register_model(name, f"{MODULES[ending]}:{name}")
        if host in MODELS_CONFIG_MAP:
            MODELS_CONFIG_MAP.setdefault(name, MODELS_CONFIG_MAP[host])


def step_architecture(path: str, config: Mapping[str, Any], ending: str = STEP_REWARD) -> str:
    """The vLLM architecture of `ending` on the backbone of the checkpoint at `path` with this `config`: that of
    Qwen2ForTokenClassification, say, is Qwen2ForStepReward.

    Asks vLLM's registry, which takes seconds. Raises `ValueError` if nothing vLLM runs has that backbone.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ValueError("vLLM is not installed, so nothing can say which architectures it serves")
    from vllm import ModelRegistry

    known = ModelRegistry.get_supported_archs()
    named = config.get("architectures") or ()
    for architecture in named:
        if host := _host(architecture, known, nested="text_config" in config):
            return _named(host, ending)
    if host := _through_transformers(named, config):
        return _named(host, ending)
    raise ValueError(
        f"config.json of {path}: architectures is {config.get('architectures')}, which has the backbone of no "
        "text-generation model of this vLLM or of transformers"
    )


def _named(host: str, ending: str) -> str:
    return host.removesuffix("ForCausalLM") + ending


def _host(architecture: str, known: Collection[str], nested: bool) -> str | None:
    """The text-generation architecture of the backbone. `nested`: config.json has the language model's own config
    inside, as a multimodal one does."""
    if architecture in known and architecture.endswith(GENERATES):
        return architecture
    backbone = _ENDING.sub("", architecture)
    # transformers calls the language model of a multimodal family Gemma3Text, vLLM calls it Gemma3.
    for name in (backbone, backbone.removesuffix("Text")):
        for generates in reversed(GENERATES) if nested else GENERATES:
            if f"{name}{generates}" in known:
                return f"{name}{generates}"
    return None


def _through_transformers(architectures: Sequence[str], config: Mapping[str, Any]) -> str | None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    causal = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
    if not any(_ENDING.sub("", name) + "ForCausalLM" in causal for name in architectures):
        return None
    return "TransformersMoEForCausalLM" if any(config.get(key) for key in _EXPERTS) else "TransformersForCausalLM"
