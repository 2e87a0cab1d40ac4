"""What SMOKE=1 puts in the place of models, data and sizes, for `common.sh`.

`python tiny.py FOLDER` writes models and data into FOLDER, if they are not there, and prints shell variables.
`python tiny.py --command WORDS` prints a command's words with the flags of a smoke run behind them.

The policy is the quickstart's, a toy that adds numbers, with ChatML around its questions. The PRM is a random
`Qwen2ForProcessRewardModel`: its scores mean nothing. Flags are those of one update on a CPU; they stand behind the
script's own, and of a flag given twice the last one counts.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from openrlhf_prm.cluster.accelerator import cpu_environment, cpu_host_flags, cpu_training_flags
from openrlhf_prm.tasks.arithmetic import HabitMix, check_steps, demonstration, questions

SOURCE = Path(__file__).parents[1] / "quickstart" / "policy"
MIX = HabitMix(additions=(2, 3), named=True)
QUESTIONS, LABELLED = 4, 16
SPECIAL = ("<|im_start|>", "<|im_end|>", "<extra_0>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + '\n' + message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKUP = r"<\|im_(start|end)\|>((user|assistant)?\n)?"
"""What the template writes around a question. The policy never saw it: its tokenizer leaves it out."""

NEVER = ("--vllm.enable_sleep", "--ds.enable_sleep")
"""Flags that a CPU cannot follow: nothing sleeps there."""

IF_GIVEN = {
    "--train.max_tokens_per_gpu": "2048",
    "--rollout.max_tokens_per_gpu": "2048",
    "--train.num_episodes": "1",
    "--prm.num_engines": "1",
    "--prm.max_model_len": "512",
    "--vine.k": "4",
    "--vine.k_min": "2",
    "--vine.half_width": "0.35",
    "--vine.max_new_tokens": "64",
    "--length_penalty.target": "40",
    "--tensor-parallel-size": "1",
    "--max-model-len": "512",
}
"""Flag -> its value, where a script gives the flag."""

ALWAYS: dict[str, list[str]] = {
    "train-ppo": [
        *("--data.max_samples", str(QUESTIONS), "--rollout.batch_size", str(QUESTIONS), "--data.max_len", "256"),
        *("--rollout.n_samples_per_prompt", "4", "--rollout.max_new_tokens", "128", "--rollout.micro_batch_size", "8"),
        *("--train.batch_size", "16", "--train.micro_batch_size", "16", "--ckpt.save_steps", "-1"),
        *("--actor.num_nodes", "1", "--actor.num_gpus_per_node", "1", "--ref.num_nodes", "1"),
        *("--ref.num_gpus_per_node", "1", "--vllm.num_engines", "1", "--vllm.tensor_parallel_size", "1"),
        *cpu_host_flags(),
    ],
    "train-prm": [
        *(
            "--data.max_len",
            "256",
            "--train.batch_size",
            "8",
            "--train.micro_batch_size",
            "4",
            "--ckpt.save_steps",
            "-1",
        ),
        *cpu_training_flags(),
    ],
    "annotate": [
        *("--data.max_samples", "2", "--rollout.max_new_tokens", "128", "--vllm.num_engines", "1"),
        *("--vllm.max_model_len", "512", "--annotation.filter_rollouts", "4", "--annotation.searches", "2"),
    ],
    "serve": ["--enforce-eager"],
}
"""Command -> flags of the smallest run, the sizes that a script leaves to its defaults among them."""


def write_models(folder: Path) -> None:
    """`policy`; `base`, the same with ChatML's markup as tokens, for a PRM to start from; `prm`."""
    from tokenizers import Regex, normalizers
    from transformers import AutoTokenizer

    for name in ("policy", "base"):
        shutil.copytree(SOURCE, folder / name)
        tokenizer = AutoTokenizer.from_pretrained(SOURCE)
        tokenizer.chat_template = CHATML
        if name == "policy":
            tokenizer.backend_tokenizer.normalizer = normalizers.Replace(Regex(MARKUP), "")
        else:
            tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
        tokenizer.save_pretrained(folder / name)
    write_prm(folder / "prm")


def write_prm(path: Path) -> None:
    """Two layers of hidden size 64 and the head of Qwen2.5-Math-PRM; a token is a byte, or one of ChatML's."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Qwen2Tokenizer(vocab={token: index for index, token in enumerate(alphabet)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL), "eos_token": "<|im_end|>"})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        dtype="float32",
    )
    weights = Qwen2ForCausalLM(config).state_dict()
    del weights["lm_head.weight"]
    for index, rows in ((0, 64), (2, 2)):
        weights |= {f"score.{index}.weight": torch.randn(rows, 64) / 8, f"score.{index}.bias": torch.zeros(rows)}
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    described = {**config.to_dict(), "architectures": ["Qwen2ForProcessRewardModel"]}
    (path / "config.json").write_text(json.dumps(described))


def write_data(folder: Path) -> None:
    """`questions.jsonl` with MATH's keys, and `labels.jsonl`, checked steps of demonstrations, as `annotate` writes
    them.
    """
    import random

    rng = random.Random(0)
    asked = ({"problem": question, "answer": answer} for question, answer in questions("train", QUESTIONS, 0, MIX))
    write_rows(folder / "questions.jsonl", asked)
    solved = (
        (question, demonstration(question, rng, MIX).splitlines())
        for question, _ in questions("train", LABELLED, 1, MIX)
    )
    labels = (
        {"question": question, "steps": steps, "hard_labels": check_steps(question, steps)}
        for question, steps in solved
    )
    write_rows(folder / "labels.jsonl", labels)


def write_rows(path: Path, rows: Iterator[Mapping]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def variables(folder: Path) -> Iterator[str]:
    """The lines that `common.sh` evaluates."""
    values = {
        "MODEL": folder / "policy",
        "BASE": folder / "base",
        "PRM": folder / "prm",
        "DATA": folder / "questions.jsonl",
        "LABELS": folder / "labels.jsonl",
        "GPUS": 1,
        **cpu_environment(),
    }
    for variable, value in values.items():
        yield f"export {variable}={shlex.quote(str(value))}"


def smaller(words: Sequence[str]) -> list[str]:
    """A command of the project with the flags of a smoke run. Raises ValueError where there is none of them in it."""
    names = [name for name in ALWAYS if name in words or f"openrlhf_prm.cli.{name.replace('-', '_')}" in words]
    if not names:
        raise ValueError(f"no smoke flags for {shlex.join(words)}; there are some for {', '.join(ALWAYS)}")
    given = (word for flag, value in IF_GIVEN.items() if flag in words for word in (flag, value))
    return [word for word in words if word not in NEVER] + [*given, *ALWAYS[names[0]]]


def main(arguments: Sequence[str]) -> None:
    """`FOLDER`: writes what is missing and prints the variables. `--command WORDS`: prints the smaller command, a NUL
    after each word.
    """
    if arguments[0] == "--command":
        print(*smaller(arguments[1:]), sep="\0", end="\0")
        return
    folder = Path(arguments[0])
    if not (folder / "labels.jsonl").exists():
        write_models(folder)
        write_data(folder)
    print("\n".join(variables(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
