"""The whole recipe on one CPU machine: `make quickstart`, or `python -m examples.quickstart.run --seed 0 [--compare]`.

Questions -> step labels by Monte Carlo rollouts -> PRM -> PRM-guided PPO -> evaluation before and after -> report.
Every stage is a command a user of the project would type; this file only chooses the settings and passes files along.
Interrupted, it goes on where it stopped.
"""

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from examples.quickstart.stages import Stage, exit_in_one_line, made_folder, run_stages
from openrlhf_prm.cluster.accelerator import (
    ROLLOUT_KV_CACHE_MB,
    cpu_host_environment,
    cpu_host_flags,
    on_cpu,
    prepare_environment,
)
from openrlhf_prm.data.questions import KEYS, write_question_file
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.tasks.arithmetic import HabitMix, questions
from vllm_prm.durable_file import write_atomically

POLICY = Path(__file__).parent / "policy"
REWARD = Path(__file__).parents[2] / "openrlhf_prm" / "answers" / "outcome.py"
MIX = HabitMix(carry=0.22, additions=(6, 7, 8), named=True)
"""How often additions carry decides how weak the policy starts, because its quick habit fails there and only there."""
LABELLED_MIX = HabitMix(carry=0.22, additions=tuple(range(2, 9)), named=True)
"""Long chains are rarely right at first, so that nearly all rollouts from their steps fail and say little; steps of
shorter ones look the same. Of short chains alone a PRM does not learn to remember an early mistake.
"""
LABELLED, TESTED = 500, 300
UPDATES, ROLLOUT_QUESTIONS, SAMPLES = 12, 16, 8
MAX_NEW_TOKENS, EPOCHS = 300, 8
GUIDED_ADAM = {"lr": 9.6e-3, "steps": 2}
STOCK_ADAM = {"lr": 2.4e-3, "steps": 4}
"""Learning rate and optimizer steps an update, each the best of five pairs for its run on two seeds of the tune split
(`benchmarks.sample_efficiency`). Both with Adam's epsilon at 1e-4 and gradients clipped to 0.01: a gradient's element
is some 1e-5 here, and at Adam's default epsilon those that are mere noise would move as far as the others.
"""


def write_questions(folder: Path, seed: int, split: str = "test") -> None:
    """Questions for labels and for PPO from the train split, those to evaluate on from `split`; all disjoint."""
    labelled = list(questions("train", LABELLED, seed + 10_000, LABELLED_MIX))
    unlabelled = (pair for pair in questions("train", sys.maxsize, seed, MIX) if pair not in labelled)
    parts = {
        "label_questions": labelled,
        "ppo_questions": itertools.islice(unlabelled, UPDATES * ROLLOUT_QUESTIONS),
        f"{split}_questions": questions(split, TESTED, seed, MIX),
    }
    for name, rows in parts.items():
        write_question_file(folder / f"{name}.jsonl", rows)


def command(module: str, *flags: object) -> list[str]:
    """The command line of one of the project's commands under this interpreter."""
    return [sys.executable, "-m", f"openrlhf_prm.cli.{module}", *map(str, flags)]


def ppo_command(module: str, flags: Sequence[object]) -> list[str]:
    """The command line of a PPO run, ours or the host's own; the latter with the variables it needs on a CPU."""
    of_host = module.startswith("openrlhf.") and on_cpu()
    variables = [f"{name}={value}" for name, value in cpu_host_environment().items()] if of_host else []
    return [*(["env", *variables] if variables else []), sys.executable, "-m", module, *map(str, flags)]


def ppo_flags(folder: Path, name: str, tensorboard: Path, seed: int, lr: float, steps: int) -> list[object]:
    """What the guided run and the stock run share: all but the PRM, the estimator, the learning rate and the optimizer
    steps an update.
    """
    return [
        *("--actor.model_name_or_path", POLICY, "--reward.remote_url", REWARD),
        *("--data.prompt_dataset", folder / "ppo_questions.jsonl", *KEYS),
        *("--data.max_len", MAX_NEW_TOKENS + 80, "--rollout.max_new_tokens", MAX_NEW_TOKENS),
        *("--rollout.batch_size", ROLLOUT_QUESTIONS, "--rollout.n_samples_per_prompt", SAMPLES),
        *("--rollout.micro_batch_size", ROLLOUT_QUESTIONS * SAMPLES),
        *("--train.batch_size", ROLLOUT_QUESTIONS * SAMPLES // steps, "--train.micro_batch_size", 32),
        *("--actor.adam.lr", lr, "--actor.adam.eps", 1e-4, "--actor.max_norm", 0.01),
        *("--algo.kl.init_coef", 0, "--algo.advantage.is_correction_level", "token"),
        *("--ref.num_gpus_per_node", 1, "--reward.num_gpus_per_node", 1, "--critic.num_gpus_per_node", 1),
        *("--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--vllm.enable_prefix_caching"),
        *("--ckpt.output_dir", folder / name, "--ckpt.path", folder / f"{name}_ckpt"),
        *("--logger.tensorboard_dir", tensorboard, "--train.seed", seed),
        *(cpu_host_flags() if on_cpu() else []),
    ]


def prm_stages(
    folder: Path,
    seed: int,
    policy: Path,
    labelling: Sequence[object],
    training: Sequence[object],
    expected_s: tuple[float, float],
) -> list[Stage]:
    """Labels of the policy's steps, and a PRM trained on them in `folder`/prm; `labelling` and `training` are further
    flags of the two commands, `expected_s` how long each takes.
    """
    labels, prm = folder / "labels.jsonl", folder / "prm"
    return [
        Stage(
            "annotate",
            "label steps by rollouts (Math-Shepherd)",
            command(
                *("annotate", "--annotator", "math_shepherd", "--actor.model_name_or_path", policy, *KEYS),
                *("--data.input", folder / "label_questions.jsonl", "--data.output", labels),
                *("--annotation.solutions_per_question", 2, "--annotation.rollouts", 6, *labelling),
                *("--train.seed", seed),
            ),
            [labels],
            expected_s=expected_s[0],
        ),
        Stage(
            "train_prm",
            "train the process reward model",
            command(
                *("train_prm", "--model.model_name_or_path", policy, "--data.dataset", labels),
                *("--ckpt.output_dir", prm, "--train.seed", seed),
                *("--train.batch_size", 16, "--train.micro_batch_size", 16, "--adam.lr", 2e-3, *training),
            ),
            [prm / "config.json"],
            expected_s=expected_s[1],
            fresh=(prm,),
        ),
    ]


def ppo_stage(folder: Path, name: str, title: str, tensorboard: str, program: list[str], expected_s: float) -> Stage:
    """A PPO run whose policy goes to `folder`/policy_`name`."""
    return Stage(
        f"ppo_{name}",
        title,
        program,
        [folder / f"policy_{name}" / "config.json"],
        expected_s=expected_s,
        progress=r"Global step (\d+):",
        units=UPDATES,
        fresh=(folder / f"policy_{name}", folder / tensorboard),
    )


def plan(folder: Path, seed: int, compare: bool, split: str = "test") -> list[Stage]:
    """The stages in order."""
    prm, models = folder / "prm", {"before": POLICY, "after": folder / "policy_guided"}
    guided = command(
        *("train_ppo_ray", *ppo_flags(folder, "policy_guided", folder / "tensorboard", seed, **GUIDED_ADAM)),
        *("--prm.model_name_or_path", prm, "--prm.kv_cache_mb", 128),
        # What a step changed in the value, the verified outcome being the last value, which is therefore not added
        # once more. With lambd near 1 an error of the PRM cannot outweigh the outcome; 0.9 reaches six steps before it
        # is halved.
        *("--process_reward.shaping", "verified_potential", "--process_reward.outcome_coef", 0),
        *("--algo.advantage.estimator", "step_returns", "--algo.advantage.lambd", 0.9),
        # Where the first updates make the policy worse nearly all advantages are negative, and at their full weight
        # it would unlearn whatever it does.
        *("--algo.advantage.negative_weight", 0.1),
    )
    stages = [
        *prm_stages(
            folder,
            seed,
            POLICY,
            # Changed digits, because a policy that is pushed fast comes to make mistakes that it did not make before.
            ("--annotation.corrupted_per_question", 2, "--rollout.max_new_tokens", MAX_NEW_TOKENS),
            ("--train.max_epochs", EPOCHS, "--data.label_kind", "soft"),
            expected_s=(120, 150),
        ),
        ppo_stage(folder, "guided", "PPO guided by step rewards", "tensorboard", guided, 160),
    ]
    if compare:
        models["stock"] = folder / "policy_stock"
        flags = ppo_flags(folder, "policy_stock", folder / "tensorboard_stock", seed, **STOCK_ADAM)
        flags += ["--algo.advantage.estimator", "rloo"]
        stock = ppo_command("openrlhf.cli.train_ppo_ray", flags)
        title = "the best stock method for this task (rloo)"
        stages.append(ppo_stage(folder, "stock", title, "tensorboard_stock", stock, 160))
    stages.append(
        Stage(
            "evaluate",
            f"evaluate on {TESTED} held-out questions",
            command(
                *("evaluate", "--actor.model_name_or_path", *models.values()),
                *("--prm.model_name_or_path", prm, "--data.input", folder / f"{split}_questions.jsonl", *KEYS),
                *("--rollout.max_new_tokens", MAX_NEW_TOKENS, "--eval.n_samples_per_prompt", 8),
                *("--eval.step_checker", "arithmetic", "--train.seed", seed),
                *("--eval.output", *(folder / f"{name}.json" for name in models)),
                *("--eval.samples", *(folder / f"{name}.samples.jsonl" for name in models)),
            ),
            [folder / f"{name}.json" for name in models],
            expected_s=60 + 70 * len(models),
        )
    )
    return stages


def write_result(folder: Path, seed: int, seconds: dict[str, float], names: list[str]) -> dict:
    """result.json: the evaluation of each policy, seconds per stage, seed and versions."""
    result = {
        **{name: json.loads((folder / f"{name}.json").read_text()) for name in names},
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
        "seed": seed,
        "versions": versions(),
    }
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def print_table(result: dict, names: list[str]) -> None:
    """The table of the policies: before, PRM-guided, and stock where it was run."""
    titles = {"before": "before", "after": "PRM-guided", "stock": "stock rloo"}
    table = Table(title=f"{TESTED} held-out questions, seed {result['seed']}")
    table.add_column("")
    for name in names:
        table.add_column(titles[name], justify="right")
    rows = [
        ("greedy accuracy", lambda r: f"{r['greedy']:.1%}"),
        ("mean@8", lambda r: f"{r['mean_at_8']:.1%}"),
        ("pass@8", lambda r: f"{r['pass_at_8']:.1%}"),
        ("best-of-8 by the PRM (min)", lambda r: f"{r['best_of_8']['min']:.1%}"),
        ("right steps", lambda r: f"{r['step_accuracy']:.1%}"),
        ("mean tokens", lambda r: f"{r['mean_tokens']:.1f}"),
    ]
    for title, figure in rows:
        table.add_row(title, *(figure(result[name]) for name in names))
    Console().print(table)


def main() -> None:
    """Runs the stages, writes result.json and report.html, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compare", action="store_true", help="also run the best stock method for this task (rloo)")
    parser.add_argument("--split", choices=["test", "tune"], default="test", help="where accuracy is measured")
    parser.add_argument("--output", default=None, help="folder; default runs/quickstart, or runs/quickstart-seedN")
    args = parser.parse_args()
    folder = made_folder(args.output or ("runs/quickstart" if args.seed == 0 else f"runs/quickstart-seed{args.seed}"))
    prepare_environment()
    os.environ.setdefault(ROLLOUT_KV_CACHE_MB, "128")
    write_questions(folder, args.seed, args.split)
    names = ["before", "after", *(["stock"] if args.compare else [])]
    with exit_in_one_line():
        seconds = run_stages(plan(folder, args.seed, args.compare, args.split), folder)
        result = write_result(folder, args.seed, seconds, names)
        report = Stage(
            "report",
            "write the report",
            command("report", "--run", folder, "--output", folder / "report.html"),
            [folder / "report.html"],
            expected_s=5,
            always=True,
        )
        run_stages([report], folder)
    print_table(result, names)
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    main()
