"""An agent with a calculator, on CPU: `make calculator-agent`, or `python -m examples.calculator_agent.run --seed 0`.

Demonstrations that err make a small policy; PPO trains it twice, with a reward for every turn and with one for the
answer alone (the host's `group_norm`); all three are measured in conversations about held-out questions. Every stage
is a command a user of the project would type. Interrupted, it goes on where it stopped. The last line of output is one
JSON object.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.calculator_agent.task import MIX
from examples.quickstart.run import command, ppo_command
from examples.quickstart.stages import Stage, exit_in_one_line, made_folder, run_stages
from examples.rejection_sampling.run import gain
from openrlhf_prm.cluster.accelerator import ROLLOUT_KV_CACHE_MB, cpu_host_flags, on_cpu, prepare_environment
from openrlhf_prm.data.questions import KEYS, write_question_file
from openrlhf_prm.evaluation.table import print_results
from openrlhf_prm.evaluation.versions import versions
from openrlhf_prm.tasks.arithmetic import questions
from vllm_prm.durable_file import write_atomically

HERE = Path(__file__).parent
UPDATES, ROLLOUT_QUESTIONS, SAMPLES = 16, 16, 8
CONTEXT = 112
"""Tokens of a question with its conversation: four additions and the answer take some 80."""
TESTED, TEST_SAMPLES = 200, 4


@dataclass(frozen=True)
class Method:
    """How PPO is paid. module: its command; agent: the file of its agent; flags: of its estimator. lr, steps: learning
    rate and optimizer steps an update, as tuned by `benchmarks.calculator_agent`.
    """

    title: str
    module: str
    agent: str
    flags: tuple[object, ...]
    lr: float
    steps: int


METHODS = {
    "turns": Method(
        title="PPO with a reward for every turn",
        module="openrlhf_prm.cli.train_ppo_ray",
        agent="agent.py",
        # A turn is judged by what it wrote, so later turns say nothing about it. What is right says more than what is
        # wrong: pushed away from many wrong turns at once, the policy would unlearn right ones that look like them.
        flags=(
            *("--credit.turn_rewards", "--credit.unit", "turn"),
            *("--algo.advantage.estimator", "step_group", "--algo.advantage.lambd", 0),
            *("--algo.advantage.negative_weight", 0.1),
        ),
        lr=2.4e-3,
        steps=4,
    ),
    "outcome": Method(
        title="PPO with a reward for the answer alone (group_norm)",
        module="openrlhf.cli.train_ppo_ray",
        agent="outcome_agent.py",
        flags=("--algo.advantage.estimator", "group_norm"),
        lr=1.2e-3,
        steps=4,
    ),
}


def ppo_flags(
    method: str,
    policy: Path,
    data: Path,
    folder: Path,
    seed: int,
    lr: float,
    steps: int,
    eps: float = 1e-4,
    max_norm: float = 0.01,
) -> list[object]:
    """The flags of a PPO run; what differs between methods is the agent and the estimator, and what was tuned."""
    responses = ROLLOUT_QUESTIONS * SAMPLES
    return [
        *("--actor.model_name_or_path", policy, "--train.agent_func_path", HERE / METHODS[method].agent),
        *("--data.prompt_dataset", data, *KEYS, "--data.max_len", CONTEXT, "--rollout.max_new_tokens", CONTEXT // 2),
        *("--rollout.batch_size", ROLLOUT_QUESTIONS, "--rollout.n_samples_per_prompt", SAMPLES),
        *("--rollout.micro_batch_size", responses, "--train.batch_size", responses // steps),
        *("--train.micro_batch_size", min(64, responses // steps)),
        *("--actor.adam.lr", lr, "--actor.adam.eps", eps, "--actor.max_norm", max_norm),
        *("--algo.kl.init_coef", 0, "--algo.advantage.is_correction_level", "token"),
        *("--ref.num_gpus_per_node", 1, "--reward.num_gpus_per_node", 1, "--critic.num_gpus_per_node", 1),
        *("--actor.num_gpus_per_node", 1, "--vllm.num_engines", 1, "--vllm.enable_prefix_caching"),
        *("--ckpt.output_dir", folder / "policy", "--ckpt.path", folder / "ckpt"),
        *("--logger.tensorboard_dir", folder / "tensorboard", "--train.seed", seed),
        *METHODS[method].flags,
        *(cpu_host_flags() if on_cpu() else []),
    ]


def policy_stage(policy: Path) -> Stage:
    """The policy of all runs, whatever their seed."""
    program = [sys.executable, "-m", "examples.calculator_agent.make_policy", "--output", str(policy)]
    return Stage("policy", "make a policy from demonstrations that err", program, [policy / "config.json"], 60)


def ppo_stage(folder: Path, name: str, policy: Path, seed: int) -> Stage:
    """One of the two PPO runs, in `folder`/`name`."""
    method, own = METHODS[name], folder / name
    flags = ppo_flags(name, policy, folder / "train.jsonl", own, seed, method.lr, method.steps)
    return Stage(
        f"ppo_{name}",
        method.title,
        ppo_command(method.module, flags),
        [own / "policy" / "config.json"],
        expected_s=90,
        progress=r"Global step (\d+):",
        units=UPDATES,
        fresh=(own,),
    )


def stages(folder: Path, seed: int) -> list[Stage]:
    """The stages in order."""
    policy = folder / "start"
    models = {"before": policy, **{name: folder / name / "policy" for name in METHODS}}
    return [
        policy_stage(policy),
        *(ppo_stage(folder, name, policy, seed) for name in METHODS),
        Stage(
            "evaluate",
            f"evaluate in conversations about {TESTED} held-out questions",
            command(
                *("evaluate", "--actor.model_name_or_path", *models.values(), *KEYS),
                *("--data.input", folder / "test.jsonl", "--eval.agent_func_path", HERE / "agent.py"),
                *("--vllm.max_model_len", CONTEXT, "--eval.n_samples_per_prompt", TEST_SAMPLES, "--train.seed", seed),
                *("--eval.output", *(folder / f"{name}.json" for name in models)),
                *("--eval.samples", *(folder / f"{name}.samples.jsonl" for name in models)),
            ),
            [folder / f"{name}.json" for name in models],
            expected_s=30 * len(models),
        ),
    ]


def write_questions(folder: Path, seed: int) -> None:
    """Questions to train on, and those of the test split, which are disjoint from them."""
    for split, count in (("train", UPDATES * ROLLOUT_QUESTIONS), ("test", TESTED)):
        write_question_file(folder / f"{split}.jsonl", questions(split, count, seed, MIX))


def habits(folder: Path, name: str) -> dict[str, float]:
    """How the sampled conversations of an evaluation go: turns, and additions that were handed to the calculator."""
    rows = [json.loads(line) for line in (folder / f"{name}.samples.jsonl").read_text().splitlines()]
    turns = [row["steps"] for row in rows if row["kind"] == "sample"]
    sums = [turn for steps in turns for turn in steps if "+" in turn]
    return {
        "turns": sum(map(len, turns)) / len(turns),
        "asked": sum("=?" in turn for turn in sums) / max(len(sums), 1),
    }


def result_of(folder: Path, seed: int, seconds: dict[str, float]) -> dict:
    """Each policy's accuracy and habits, and how far rewards per turn are ahead."""
    evaluations = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("before", *METHODS)}
    names = ("greedy", f"mean_at_{TEST_SAMPLES}")
    return {
        **{
            name: {
                **{key: result[key] for key in names},
                "intervals": {key: result["intervals"][key] for key in names},
                **habits(folder, name),
            }
            for name, result in evaluations.items()
        },
        "ahead": gain(folder, "outcome", "turns", "sample", seed),
        "seconds": seconds | {"total": round(sum(seconds.values()), 1)},
        "seed": seed,
        "versions": versions(),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the stages, writes result.json, prints the table and the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of questions, training and sampling (default 0)")
    parser.add_argument("--output", help="folder; default runs/calculator_agent, or runs/calculator_agent-seedN")
    args = parser.parse_args(argv)
    folder = made_folder(args.output or "runs/calculator_agent" + (f"-seed{args.seed}" if args.seed else ""))
    prepare_environment()
    os.environ.setdefault(ROLLOUT_KV_CACHE_MB, "128")
    write_questions(folder, args.seed)
    with exit_in_one_line():
        seconds = run_stages(stages(folder, args.seed), folder)
    result = result_of(folder, args.seed, seconds)
    write_atomically(folder / "result.json", json.dumps(result, indent=2) + "\n")
    print_results(json.loads((folder / f"{name}.json").read_text()) for name in ("before", *METHODS))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
