"""What vLLM's own classes leave out of a checkpoint's rotary embedding, as overrides of its config.

transformers' YaRN multiplies cos and sin by

    a = attention_factor, or g(mscale) / g(mscale_all_dim) where both are given, or g(1);   g(m) = 0.1 m ln(factor) + 1

vLLM 0.29 multiplies them by `attn_factor` g(1), whatever else config.json says. Ministral 3 scales the queries at
position t by 1 + beta ln(1 + floor(t / original_max_position_embeddings)), too: vLLM reads `beta` from a key
`llama_4_scaling`, transformers writes it as `llama_4_scaling_beta`.
"""

import math
from collections.abc import Mapping
from typing import Any


def rope_overrides(config: Mapping[str, Any]) -> dict[str, Any]:
    """`hf_overrides` that make vLLM's rotary embedding that of a transformers checkpoint with this config.json; empty
    where it is already. Models with `kv_lora_rank` (DeepSeek's) read `mscale` in vLLM, too."""
    if "text_config" in config:
        nested = rope_overrides(config["text_config"])
        return {"text_config": nested} if nested else {}
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = parameters.get("rope_type", parameters.get("type"))
    overrides: dict[str, Any] = {}
    if kind == "yarn" and "attn_factor" not in parameters and "kv_lora_rank" not in config:
        left_out = _scale(parameters) / _g(parameters)
        if not math.isclose(left_out, 1.0):
            theta = {"rope_theta": config["rope_theta"]} if "rope_theta" in config else {}
            overrides["rope_parameters"] = {**theta, **parameters, "rope_type": kind, "attn_factor": left_out}
    if (beta := parameters.get("llama_4_scaling_beta")) and "llama_4_scaling" not in config:
        length = parameters["original_max_position_embeddings"]
        overrides["llama_4_scaling"] = {"beta": beta, "original_max_position_embeddings": length}
    return overrides


def _scale(parameters: Mapping[str, Any]) -> float:
    if parameters.get("attention_factor") is not None:
        return parameters["attention_factor"]
    if parameters.get("mscale") and parameters.get("mscale_all_dim"):
        return _g(parameters, parameters["mscale"]) / _g(parameters, parameters["mscale_all_dim"])
    return _g(parameters)


def _g(parameters: Mapping[str, Any], scale: float = 1.0) -> float:
    factor = parameters.get("factor") or 1.0
    return 0.1 * scale * math.log(factor) + 1.0 if factor > 1 else 1.0
