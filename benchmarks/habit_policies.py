"""Policies of the arithmetic task with other habits than `policies/short`: the same model, trained on further
demonstrations.
"""

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.runs import POLICY, made_with, run_command
from openrlhf_prm.data.questions import KEYS
from openrlhf_prm.tasks.arithmetic import HabitMix


def fine_tune(output: Path, mix: HabitMix, updates: int, seed: int, policy: Path = POLICY, lr: float = 1.5e-3) -> Path:
    """A copy of `policy` trained on fresh demonstrations of the mix (`make_policy.tune_habits`).

    Made once for the same settings.
    """
    if made_with(output, {"mix": asdict(mix), "updates": updates, "seed": seed, "policy": policy, "lr": lr}):
        return output
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from examples.quickstart.make_policy import tune_habits

    tokenizer = AutoTokenizer.from_pretrained(policy)
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tune_habits(model, tokenizer, mix, updates, seed, lr)
    model.to(torch.bfloat16).save_pretrained(output)
    tokenizer.save_pretrained(output)
    return output


def evaluate(policies: dict[str, Path], data: Path, folder: Path, samples: int, limit: int, seed: int = 0) -> dict:
    """`openrlhf_prm.cli.evaluate` on every policy: name -> its summary."""
    outputs = {name: folder / f"{name}.json" for name in policies}
    run_command(
        "openrlhf_prm.cli.evaluate",
        [
            *("--actor.model_name_or_path", *policies.values(), "--data.input", data, *KEYS),
            *("--rollout.max_new_tokens", limit, "--eval.n_samples_per_prompt", samples),
            *("--eval.step_checker", "arithmetic", "--train.seed", seed, "--eval.output", *outputs.values()),
        ],
        folder / "evaluate.log",
    )
    return {name: json.loads(path.read_text()) for name, path in outputs.items()}
