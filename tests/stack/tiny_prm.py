"""A random PRM small enough for a CPU test, with a character tokenizer made on the spot."""

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"


def save_tiny_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """One token per character, plus `<unk>`, `<s>`, `</s>`."""
    tokens = ["<unk>", "<s>", "</s>", *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", behavior="isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(path)
    return fast


def save_tiny_prm(path: Path, *, tied: bool = False, max_position_embeddings: int = 512, seed: int = 0) -> Path:
    """A two-layer Llama of hidden size 64 declared as a placeholder PRM: tag `<s>`, reward tokens `+` and `-`."""
    torch.manual_seed(seed)
    tokenizer = save_tiny_tokenizer(path)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=max_position_embeddings,
        tie_word_embeddings=tied,
        initializer_range=0.2,  # the usual 0.02 would put every score at 0.5
        dtype="float32",
    )
    LlamaForCausalLM(config).save_pretrained(path)
    declare_prm(path)
    return path


def declare_prm(path: Path, **changes) -> None:
    """Write the `prm` key into the checkpoint's config.json."""
    file = path / "config.json"
    config = json.loads(file.read_text())
    config["prm"] = {
        "family": "placeholder",
        "placeholder_token": "<s>",
        "reward_tokens": ["+", "-"],
        "step_separator": "\n",
        **changes,
    }
    file.write_text(json.dumps(config))
