"""Trains the calculator agent's policy from scratch: `python -m examples.calculator_agent.make_policy --output DIR`.

A Llama of some 100k parameters over the quickstart's tokens learns from demonstrations whose habits err (see
`examples.calculator_agent.task.Habits`). What its environment writes carries no loss.
"""

import argparse
import random
from pathlib import Path

import torch
from tqdm import tqdm

from examples.calculator_agent.task import MIX, Habits, demonstration
from examples.quickstart.make_policy import build_model, build_tokenizer, fit
from openrlhf_prm.tasks.arithmetic import questions


def tokens_of(tokenizer, question: str, rng: random.Random, habits: Habits) -> tuple[list[int], list[int]]:
    """Token ids and labels of one demonstration; each turn ends with the end token."""
    ids = tokenizer(question, add_special_tokens=False)["input_ids"]
    labels = [-100] * len(ids)
    for turn, feedback in demonstration(question, rng, habits):
        own = tokenizer(turn, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        words = tokenizer(feedback, add_special_tokens=False)["input_ids"]
        ids += own + words
        labels += own + [-100] * len(words)
    return ids, labels


def batch(tokenizer, rows: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    """Rows -> ids and labels (B, T), padded on the right."""
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for _, row in rows])
    return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}


def train(output: Path, seed: int, updates: int, habits: Habits) -> None:
    """Fits fresh demonstrations of questions of the train split."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer(named=True)
    model = build_model(tokenizer, layers=2, heads=2)
    pool = [question for question, _ in questions("train", 30_000, seed + 1_000, MIX)]

    def inputs(update: int) -> dict[str, torch.Tensor]:
        return batch(tokenizer, [tokens_of(tokenizer, question, rng, habits) for question in rng.sample(pool, 64)])

    for _ in tqdm(fit(model, updates, 6e-3, 50, inputs), "training the policy", updates, mininterval=5):
        pass
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Parses the flags and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=600, help="optimizer steps")
    args = parser.parse_args()
    train(args.output, args.seed, args.updates, Habits())


if __name__ == "__main__":
    main()
