"""Random causal LMs with a chat template, small enough for a CPU test."""

from pathlib import Path

import torch
from tiny_tokenizers import llama_3_tokenizer, qwen_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

TOKENIZERS = {"llama": llama_3_tokenizer, "qwen2": qwen_tokenizer}


def save_tiny_chat_lm(path: Path, model_type: str, *, tied: bool = False, seed: int = 0, **config) -> Path:
    """A random two-layer model of hidden size 64 and the tokenizer of its kind; `config` wins."""
    torch.manual_seed(seed)
    tokenizer = TOKENIZERS[model_type]()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": tied,
        "initializer_range": 0.2,
        "dtype": "float32",
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **{**sizes, **config})).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
