"""A policy that writes noise."""

from pathlib import Path

import torch

from examples.quickstart.make_policy import build_model, build_tokenizer


def save_untrained_policy(path: Path) -> Path:
    """The quickstart's policy before any training, in bfloat16."""
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
