"""A random checkpoint of each backbone that is tried: transformers' own config and model, two layers of size 64."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_tokenizers import qwen_tokenizer

CONTEXT = 2048
SHARED = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,  # the usual 0.02 would put every score at 0.5
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "dtype": "float32",
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}


@dataclass(frozen=True)
class Backbone:
    """`config` and `model`: classes of transformers. `settings`: over the shared ones."""

    config: str
    model: str
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path, seed: int = 0) -> Path:
        """A random checkpoint at `path`, with a tokenizer."""
        torch.manual_seed(seed)
        tokenizer = qwen_tokenizer()
        config = getattr(transformers, self.config)(**{**SHARED, "vocab_size": len(tokenizer), **self.settings})
        model = getattr(transformers, self.model)(config).float()
        with torch.no_grad():  # norms and biases are initialised to constants, which hides whether they are read
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.1 * torch.randn_like(parameter)
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path


BACKBONES = {
    "Qwen3 MoE": Backbone("Qwen3MoeConfig", "Qwen3MoeForCausalLM", {**EXPERTS, "num_experts": 4}),
    "Gemma 2": Backbone(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {"sliding_window": 64, "final_logit_softcapping": 5.0, "query_pre_attn_scalar": 32},
    ),
    "Gemma 3": Backbone("Gemma3TextConfig", "Gemma3ForCausalLM", {"sliding_window": 64, "query_pre_attn_scalar": 32}),
    "Phi": Backbone("PhiConfig", "PhiForCausalLM", {"num_key_value_heads": 2, "intermediate_size": 256}),
    "Phi-3": Backbone("Phi3Config", "Phi3ForCausalLM", {"original_max_position_embeddings": CONTEXT}),
    "Mixtral": Backbone("MixtralConfig", "MixtralForCausalLM", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "Ministral 3": Backbone(
        "Ministral3Config",
        "Ministral3ForCausalLM",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1e6,
                "factor": 16.0,
                "original_max_position_embeddings": 128,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "llama_4_scaling_beta": 0.1,
            }
        },
    ),
    "OLMo 2": Backbone("Olmo2Config", "Olmo2ForCausalLM"),
    "OLMoE": Backbone("OlmoeConfig", "OlmoeForCausalLM", {"num_experts": 4, "num_experts_per_tok": 2}),
    "GLM-4": Backbone("Glm4Config", "Glm4ForCausalLM"),
    "Granite": Backbone("GraniteConfig", "GraniteForCausalLM", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
    "Cohere": Backbone("CohereConfig", "CohereForCausalLM", {"logit_scale": 0.25}),
    "StableLM": Backbone("StableLmConfig", "StableLmForCausalLM"),
}
