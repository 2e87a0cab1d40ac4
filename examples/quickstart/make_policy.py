"""Trains the quickstart's policy from scratch: `python -m examples.quickstart.make_policy --output
examples/quickstart/policy`.

A 369k-parameter Llama over 37 tokens learns to write additions in steps from demonstrations that mix three
habits (see `openrlhf_prm.tasks.arithmetic`). `long` is the quickstart's: it learns to add on chains of up to nine
additions, then, on some more demonstrations, to take its quick habit the more often the larger the digit that is added.
`short` (`benchmarks/policies/short`) has short chains and the same habits everywhere, `uneven`
(`examples/rejection_sampling/policy`) short chains and the quickstart's habits. They are toys: they can add a few
two-digit numbers and nothing else. What matters is that their weakness is a habit (they often take the quick step that
forgets the carry), so that reinforcement learning has something to choose. The same seed rebuilds the same data; the
weights are stored in bf16 to stay small.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from openrlhf_prm.tasks.arithmetic import NAMES, HabitMix, demonstration, operands_of, questions

SPECIAL = ["<pad>", "<eos>", "<step>"]
MIXES = {
    "short": HabitMix(),
    "uneven": HabitMix(quick=0.7, quick_per_unit=0.027),
    "long": HabitMix(quick=0.7, filler=0.1, additions=tuple(range(3, 10)), named=True),
}
TUNED_MIX = HabitMix(quick=0.7, quick_per_unit=0.027, filler=0.1, additions=tuple(range(2, 9)), named=True)
"""The habits that `long` gets at the end."""
TUNING_UPDATES = 250
LONGEST_JUMP = 20
"""About how many tokens a careful line is longer than a quick one, see `stretched_positions`."""
WORDS = ["Q: ", "Answer: ", "so ", ": ", ", ", " > ", "\n", "=?", "=", "+", "-"]


def build_tokenizer(named: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a digit (and a name, if `named`) and a few words; `<step>` is kept for the PRM's
    placeholder, `+`/`-` for its verdicts.
    """
    vocabulary = {
        word: index for index, word in enumerate([*SPECIAL, "<unk>", *WORDS, *(NAMES if named else ""), *"0123456789"])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"Q: |Answer: |so |: |, | > |=\?|[^ ]| "), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        additional_special_tokens=["<step>"],
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, layers: int = 3, heads: int = 3) -> LlamaForCausalLM:
    """An untrained policy; each head has size 32, which vLLM's CPU attention supports."""
    config = LlamaConfig(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=32 * heads,
        intermediate_size=96 * heads,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def batch(tokenizer, pairs, rng, mix) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels (B, T); the question and the padding carry no loss."""
    rows, labels = [], []
    for question, _ in pairs:
        prompt = tokenizer(question, add_special_tokens=False)["input_ids"]
        answer = tokenizer(demonstration(question, rng, mix), add_special_tokens=False)["input_ids"] + [
            tokenizer.eos_token_id
        ]
        rows.append(prompt + answer)
        labels.append([-100] * len(prompt) + answer)
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    return ids, torch.tensor([row + [-100] * (width - len(row)) for row in labels])


def stretched_positions(ids: torch.Tensor, newline: int, rng: random.Random) -> torch.Tensor:
    """Position ids (B, T) of which half the rows jump by 0 to ``LONGEST_JUMP`` after each line.

    Most demonstrations are quick and short, so a policy that turns careful would look back over distances it never saw
    in training, and lose its place at the end of a chain. A jump makes a quick line as long as a careful one for the
    attention (compare randomised positional encodings, 2305.16843).
    """
    jumps = torch.zeros_like(ids)
    for row in range(len(ids)):
        if rng.random() < 0.5:
            ends = (ids[row, :-1] == newline).nonzero().flatten() + 1
            jumps[row, ends] = torch.tensor([rng.randint(0, LONGEST_JUMP) for _ in ends])
    return torch.arange(ids.shape[1]) + jumps.cumsum(dim=1)


def fit(model, updates: int, lr: float, warmup: int, inputs: Callable[[int], dict]) -> Iterator[float]:
    """Cross-entropy with AdamW and a cosine schedule; `inputs` of an update are the model's, labels among them. Yields
    each update's loss.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * i / updates)))
    )
    for update in range(updates):
        loss = model(**inputs(update)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        yield loss.item()


def tune_habits(model, tokenizer, mix: HabitMix, updates: int, seed: int, lr: float = 1.5e-3) -> None:
    """Gives a policy the habits of `mix`, by `updates` batches of fresh demonstrations."""
    torch.manual_seed(seed)
    rng, pool = random.Random(f"habits-{seed}"), list(questions("train", 20_000, seed + 1_000, mix))

    def inputs(update: int) -> dict:
        ids, labels = batch(tokenizer, rng.sample(pool, 64), rng, mix)
        return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids)}

    for _ in tqdm(fit(model, updates, lr, 20, inputs), "tuning its habits", updates, mininterval=5):
        pass


def train(args: argparse.Namespace) -> None:
    """Fits fresh demonstrations of the train split.

    Chains of up to nine additions are drawn in batches of equal length, which waste no padding, and the short ones
    come first: they teach the same skills faster.
    """
    torch.manual_seed(args.seed)
    rng, mix = random.Random(args.seed), MIXES[args.recipe]
    tokenizer = build_tokenizer(mix.named)
    model, newline = build_model(tokenizer), tokenizer.convert_tokens_to_ids("\n")
    pool = list(questions("train", args.questions, args.seed, mix))
    pools = [[pair for pair in pool if len(operands_of(pair[0])) - 1 == length] for length in mix.additions]

    def inputs(update: int) -> dict:
        drawn = rng.choice(pools[:2] if update < args.updates * 0.4 else pools) if mix.named else pool
        ids, labels = batch(tokenizer, rng.sample(drawn, args.batch_size), rng, mix)
        positions = stretched_positions(ids, newline, rng) if mix.named else None
        # The mask is given because without one jumps in the positions would read as borders of packed sequences.
        return {"input_ids": ids, "labels": labels, "attention_mask": torch.ones_like(ids), "position_ids": positions}

    progress = tqdm(fit(model, args.updates, args.lr, 50, inputs), "training the policy", args.updates, mininterval=5)
    for loss in progress:
        progress.set_postfix(loss=f"{loss:.4f}")
    if args.recipe == "long":
        tune_habits(model, tokenizer, TUNED_MIX, TUNING_UPDATES, args.seed)
    output = Path(args.output)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)


def main() -> None:
    """Parses the flags and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="folder of the checkpoint")
    parser.add_argument("--recipe", choices=sorted(MIXES), default="long", help="habits of its demonstrations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=2500, help="optimizer steps")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--questions", type=int, default=100_000, help="size of the pool of training questions")
    parser.add_argument("--lr", type=float, default=4e-3)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
