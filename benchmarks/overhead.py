"""What a process reward model costs: a PRM-guided PPO step against a plain step of stock OpenRLHF.

Both train the same policy on the same questions, batch sizes and seed; the learning rate is so small that the policy,
and with it the length of its responses, stays what it is. The PRM has the policy's size. `--rounds` times a stock run
(`python -m openrlhf.cli.train_ppo_ray`, `group_norm`) and a guided run (`openrlhf_prm.cli.train_ppo_ray`, `potential`,
`step_group`) take turns, because other work on the machine then falls on both alike. A step's seconds are the host's
own timing (generation, experience, update, weight sync); the first `--warmup` updates of a run are left out.

The last line of output is one JSON object:

  plain_step_s, prm_step_s   medians over all updates of all rounds
  ratio                      prm_step_s / plain_step_s
  hidden_share               share of the time in which responses waited for scores while others were still written
"""

import json
import statistics
import sys
from pathlib import Path

from benchmarks.runs import (
    OURS,
    POLICY,
    STOCK,
    Cells,
    draw_questions,
    main,
    parser,
    positive,
    ppo_flags,
    train_ppo,
    values,
)
from openrlhf_prm.tasks.arithmetic import HabitMix

PARTS = ("generation", "make_experience", "ppo_train", "broadcast")


def as_prm(policy: Path, folder: Path) -> Path:
    """The policy with a PRM family declared: what it scores means nothing, what it costs is a PRM's of its size."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not (folder / "config.json").exists():
        AutoModelForCausalLM.from_pretrained(policy).save_pretrained(folder)
        AutoTokenizer.from_pretrained(policy).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        config["prm"] = {
            "family": "placeholder",
            "placeholder_token": "<step>",
            "reward_tokens": ["+", "-"],
            "step_separator": "\n",
        }
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def run(args) -> dict | None:
    """Rounds of both runs."""
    mix = HabitMix(carry=0.18)
    settings = {"updates": args.updates, "warmup": args.warmup, "rounds": args.rounds, "batch": args.batch}
    cells = Cells(args.output, settings, args.fresh)
    data = draw_questions(args.work_dir, "train", args.updates * args.batch, args.seed, mix)
    prm = as_prm(POLICY, args.work_dir / "prm")

    def measure(kind: str, number: int) -> dict:
        folder = args.work_dir / f"{kind}-{number}"
        flags = ppo_flags(POLICY, data, folder, args.seed, **{"actor.adam.lr": 1e-12, "rollout.batch_size": args.batch})
        if kind == "plain":
            module = STOCK
            flags += ["--algo.advantage.estimator", "group_norm"]
        else:
            module = OURS
            flags += ["--prm.model_name_or_path", prm, "--prm.kv_cache_mb", 128]
            flags += ["--process_reward.shaping", "potential", "--algo.advantage.estimator", "step_group"]
        scalars, seconds = train_ppo(module, flags, folder)
        figures = {
            "step_s": values(scalars, "timing/step_total")[args.warmup :],
            **{f"{part}_s": values(scalars, f"timing/{part}")[args.warmup :] for part in PARTS},
            "tokens": values(scalars, "rollout/response_length_mean")[args.warmup :],
            "run_s": seconds,
        }
        if kind == "prm":
            figures["hidden_share"] = values(scalars, "process/scoring_hidden")[args.warmup :]
            figures["scoring_s"] = values(scalars, "process/scoring_s")[args.warmup :]
        return figures

    wanted = {
        f"{kind} {number}": lambda k=kind, n=number: measure(k, n)
        for number in range(args.rounds)
        for kind in ("plain", "prm")
    }
    if not cells.fill(wanted, args.seconds):
        return None
    summary = summarise(cells.filled)
    cells.write(summary)
    return summary


def summarise(cells: dict[str, dict]) -> dict:
    """Medians over the updates of all rounds."""

    def median(kind: str, name: str) -> float:
        joined = [value for cell, figures in cells.items() if cell.startswith(kind) for value in figures[name]]
        return round(statistics.median(joined), 4)

    plain, prm = median("plain", "step_s"), median("prm", "step_s")
    return {
        "plain_step_s": plain,
        "prm_step_s": prm,
        "ratio": round(prm / plain, 3),
        "hidden_share": median("prm", "hidden_share"),
        **{f"{kind}_{part}_s": median(kind, f"{part}_s") for part in PARTS for kind in ("plain", "prm")},
    }


def command() -> int:
    """The command line."""
    flags = parser("overhead", __doc__)
    flags.add_argument("--updates", type=int, default=14, help="PPO updates a run (default 14)")
    flags.add_argument("--warmup", type=int, default=4, help="updates left out at the start of a run (default 4)")
    flags.add_argument("--rounds", type=int, default=3, help="runs of each kind (default 3)")
    flags.add_argument("--batch", type=int, default=32, help="questions per rollout, 8 responses each (default 32)")
    flags.add_argument("--seed", type=int, default=0)
    args = flags.parse_args()
    positive(flags, args, "updates", "rounds", "batch")
    if not 0 <= args.warmup < args.updates:
        flags.error(f"--warmup must lie in 0..{args.updates - 1}, got {args.warmup}")
    return main("overhead", run, args)


if __name__ == "__main__":
    sys.exit(command())
