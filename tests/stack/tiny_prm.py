"""A random PRM small enough for a CPU test, with a character tokenizer made on the spot, and its scores by a plain
forward pass."""

import json
import string
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vllm_prm.families import load_family

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


class Reference:
    """Step scores by a plain transformers forward in float32, the tokens written out here a second time."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.tokenizer = load_family(str(path)).tokenizer

    @torch.no_grad()
    def __call__(self, question: str, steps: list[str]) -> list[float]:
        ids = self.tokenizer.encode(question, add_special_tokens=False)
        positions = []
        for step in steps:
            ids += self.tokenizer.encode(step + "\n", add_special_tokens=False, split_special_tokens=True)
            positions.append(len(ids))
            ids.append(self.tokenizer.convert_tokens_to_ids("<s>"))
        logits = self.model(torch.tensor([ids])).logits[0, positions]
        plus, minus = self.tokenizer.convert_tokens_to_ids(["+", "-"])
        return logits[:, [plus, minus]].softmax(-1)[:, 0].tolist()


def worst(scores: list[float], expected: list[float]) -> float:
    assert len(scores) == len(expected)
    return max(abs(a - b) for a, b in zip(scores, expected, strict=True))
