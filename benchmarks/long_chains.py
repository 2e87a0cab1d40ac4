"""What chains with repaired mistakes teach: `python -m benchmarks.long_chains`.

For each seed `openrlhf-prm generate` writes chains of the arithmetic policy's own steps, mistakes taken back.

    sft    the policy is fine-tuned (`openrlhf.cli.train_sft`) on the whole chains, and on as many response tokens of
           the same chains without their detours (`shortest`). On held-out questions: accuracy, tokens, how often a
           response with a false sum still ends right (`repaired`), and how often the policy gets to the right answer
           from a prefix that ends in a wrong step (`recovery`): one of its habit, or one it never makes.
    prm    a PRM is trained (`openrlhf-prm train-prm`) on the step labels of the chains, and one on as many labels of
           the same questions without any repair (`clean`), both also on as many plain solutions, whose mistakes nobody
           repairs. On held-out chains: how far the score of the step after a repair is from that of the same step in
           the chain without detours (`gap`), and AUC of mistakes that are not yet repaired, in chains and in the
           policy's plain solutions, where all that follows a mistake is wrong.

Learning rates are chosen on the tune split with a seed of their own. Targets: recovery at least 30 points above
the shortest chains'; a gap of at most 0.05; an AUC of at least 0.95. Stages that are done are not run again.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.demonstration_prms import Labels, labelled
from benchmarks.repaired_chains import (
    PLANTED,
    clean_records,
    generate,
    has_false_sum,
    planted_questions,
    read_rows,
    write_equal_tokens,
)
from benchmarks.runs import POLICY, Cells, add_jobs_flag, made_with, main, mean_interval, parser, positive, run_command
from openrlhf_prm.cluster.accelerator import cpu_training_flags, on_cpu
from openrlhf_prm.data.questions import KEYS
from openrlhf_prm.evaluation.responses import read_samples
from openrlhf_prm.measures.steps import roc_auc
from openrlhf_prm.tasks.arithmetic import HabitMix, questions
from vllm_prm.durable_file import refuse_other_settings, write_atomically

SFT, PRMS = ("long", "shortest"), ("repaired", "clean")
RATES = (2e-3, 4e-3)
TUNE_SEED = 100
NEW_TOKENS, SAMPLES = 240, 2


def fine_tuned(folder: Path, kind: str, rows: dict, rate: float, epochs: int, seed: int) -> Path:
    """The policy after `train_sft` on the rows."""
    tuned = folder / f"{kind}_{rate}"
    if not made_with(tuned, {**rows, "rate": rate, "epochs": epochs, "seed": seed}):
        flags = [
            *("--standalone", "--nproc_per_node", 1, "-m", "openrlhf.cli.train_sft"),
            *("--model.model_name_or_path", POLICY, "--data.dataset", rows["file"], "--data.input_template", "{}"),
            *("--data.input_key", "input", "--data.output_key", "output", "--data.max_len", 400),
            *("--train.batch_size", 64, "--train.micro_batch_size", 64, "--train.max_epochs", epochs),
            *("--adam.lr", rate, "--train.seed", seed, "--ckpt.output_dir", tuned),
            *("--ckpt.path", folder / f"{kind}_ckpt", *(cpu_training_flags() if on_cpu() else [])),
        ]
        run_command("torch.distributed.run", flags, folder / f"train_sft_{kind}_{rate}.log")
    return tuned


def measured(policies: dict[str, Path], folder: Path, split: str, count: int, seed: int) -> dict[str, dict]:
    """Each policy's figures on `count` questions of a split, and on as many with a planted mistake."""
    whole = [
        {"question": question, "label": label, "kind": "whole"} for question, label in questions(split, count, seed)
    ]
    rows = whole + list(planted_questions(split, count, seed))
    data = folder / f"{split}_measured.jsonl"
    write_atomically(data, "".join(json.dumps(row) + "\n" for row in rows))
    samples = {name: folder / f"{split}_{path.name}.samples.jsonl" for name, path in policies.items()}
    missing = [name for name in policies if not samples[name].exists()]
    if missing:
        flags = [
            *("--actor.model_name_or_path", *(policies[name] for name in missing), "--data.input", data, *KEYS),
            *("--rollout.max_new_tokens", NEW_TOKENS, "--eval.n_samples_per_prompt", SAMPLES, "--train.seed", seed),
            *("--eval.output", *(samples[name].with_suffix(".json") for name in missing)),
            *("--eval.samples", *(samples[name] for name in missing), "--steps.splitter", "newline"),
        ]
        run_command("openrlhf_prm.cli.evaluate", flags, folder / f"evaluate_{split}.log")
    return {name: figures_of(samples[name], [row["kind"] for row in rows]) for name in policies}


def figures_of(samples: Path, kinds: list[str]) -> dict:
    """Of one policy's sampled responses."""
    sampled = [response for response in read_samples(samples) if response.kind == "sample"]
    by_kind = {kind: [r for r in sampled if kinds[r.index] == kind] for kind in ("whole", *PLANTED)}
    whole, planted = by_kind["whole"], [r for kind in PLANTED for r in by_kind[kind]]
    slipped = [response for response in whole if has_false_sum(response.steps)]
    return {
        "accuracy": share(r.correct for r in whole),
        "tokens": statistics.fmean(r.tokens for r in whole),
        "truncated": share(r.truncated for r in whole),
        "false_sum": len(slipped) / len(whole),
        "repaired": share(r.correct for r in slipped) if slipped else None,
        "recovery": share(r.correct for r in planted),
        **{f"recovery_{kind}": share(r.correct for r in by_kind[kind]) for kind in PLANTED},
    }


def share(flags) -> float:
    """Of true ones."""
    return statistics.fmean(map(float, flags))


def sft_cell(folder: Path, args: argparse.Namespace, rates: dict[str, float], seed: int, split: str = "test") -> dict:
    """Both fine-tunings of a seed, and the policy before them."""
    data = write_equal_tokens(generate(folder, POLICY, "train", args.chains, seed), folder)
    policies = {
        kind: fine_tuned(folder, kind, data[kind], rates[kind], args.epochs, seed) for kind in SFT if kind in rates
    }
    found = measured({"before": POLICY, **policies}, folder, split, args.questions, seed)
    rows = {kind: {key: value for key, value in data[kind].items() if key != "file"} for kind in SFT}
    return {"data": rows, **found}


def prm_cell(folder: Path, args: argparse.Namespace, seed: int) -> dict:
    """Both PRMs of a seed."""
    chains = generate(folder, POLICY, "train", args.chains, seed)
    held_out = [row for row in read_rows(generate(folder, POLICY, "test", args.questions, seed)) if repairs(row)]
    plain = labelled("test", Labels(args.questions, HabitMix()), seed)
    records = {"repaired": read_rows(Path(f"{chains}.labels.jsonl")), "clean": clean_records(chains)}
    unrepaired = labelled("train", Labels(args.chains, HabitMix()), seed)
    return {
        kind: prm_figures(trained_prm(folder, kind, records[kind] + unrepaired, seed), held_out, plain) for kind in PRMS
    }


def trained_prm(folder: Path, kind: str, records: list[dict], seed: int) -> Path:
    """A PRM of the records' hard labels."""
    prm, data = folder / f"prm_{kind}", folder / f"{kind}.labels.jsonl"
    if not made_with(prm, {"records": len(records), "seed": seed}):
        keys = ("question", "steps", "hard_labels")
        write_atomically(data, "".join(json.dumps({key: row[key] for key in keys}) + "\n" for row in records))
        prm.with_suffix(".scored.jsonl").unlink(missing_ok=True)
        flags = [
            *("--model.model_name_or_path", POLICY, "--data.dataset", data, "--data.label_kind", "hard"),
            *("--ckpt.output_dir", prm, "--train.seed", seed, "--train.max_epochs", 3, "--adam.lr", 2e-3),
            *("--train.batch_size", 16, "--train.micro_batch_size", 16),
        ]
        run_command("openrlhf_prm.cli.train_prm", flags, folder / f"train_prm_{kind}.log")
    return prm


def repairs(row: dict) -> list[tuple[int, int]]:
    """For each repair the place in the chain, and in the chain without detours, of the step that follows it and stands
    in the end.
    """
    way = [place for place, part in enumerate(row["chain"]) if part["kind"] in ("step", "answer")]
    return [(place, at) for at, place in enumerate(way) if place and row["chain"][place - 1]["kind"] == "reflection"]


def prm_figures(prm: Path, chains: list[dict], plain: list[dict]) -> dict:
    """Gap after repairs, and AUC of unrepaired mistakes."""
    long = [{"question": row["question"], "steps": [part["text"] for part in row["chain"]]} for row in chains]
    short = [{"question": row["question"], "steps": row["shortcut"].split("\n")} for row in chains]
    asked = long + short + [{"question": row["question"], "steps": row["steps"]} for row in plain]
    path, scored = prm.with_suffix(".asked.jsonl"), prm.with_suffix(".scored.jsonl")
    write_atomically(path, "".join(json.dumps(row) + "\n" for row in asked))
    if not scored.exists():
        engine = json.dumps({"enforce_eager": True})
        run_command(
            "vllm_prm.serve",
            ["score", prm, "--input", path, "--output", scored, "--engine-args", engine],
            prm.with_suffix(".score.log"),
        )
    scores = [row["step_rewards"] for row in read_rows(scored)]
    of_long, of_short, of_plain = (
        scores[: len(chains)],
        scores[len(chains) : 2 * len(chains)],
        scores[2 * len(chains) :],
    )
    pairs = [
        (whole[place], clean[at])
        for row, whole, clean in zip(chains, of_long, of_short, strict=True)
        for place, at in repairs(row)
    ]
    in_chains = [
        (score, not part["wrong"])
        for row, whole in zip(chains, of_long, strict=True)
        for part, score in zip(row["chain"], whole, strict=True)
        if part["kind"] in ("step", "failed", "answer")
    ]
    in_plain = [
        (score, bool(label))
        for row, whole in zip(plain, of_plain, strict=True)
        for score, label in zip(whole, row["hard_labels"], strict=True)
    ]
    return {
        "repairs": len(pairs),
        "gap": statistics.fmean(abs(after - clean) for after, clean in pairs),
        "score_after_repair": statistics.fmean(after for after, _ in pairs),
        "score_clean": statistics.fmean(clean for _, clean in pairs),
        "auc_in_chains": roc_auc(*map(list, zip(*in_chains, strict=True))),
        "auc_plain": roc_auc(*map(list, zip(*in_plain, strict=True))),
    }


def tune_cells(args: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """Both fine-tunings with each learning rate, measured on the tune split."""
    folder = args.work_dir / "tune"
    return {
        f"tune/{kind}/{rate}": lambda kind=kind, rate=rate: sft_cell(folder, args, {kind: rate}, TUNE_SEED, "tune")[
            kind
        ]
        for kind in SFT
        for rate in RATES
    }


def chosen_rates(cells: dict[str, dict]) -> dict[str, float]:
    """By kind, the rate with the highest sum of accuracy and recovery on the tune split."""
    return {
        kind: max(RATES, key=lambda rate: sum(cells[f"tune/{kind}/{rate}"][name] for name in ("accuracy", "recovery")))
        for kind in SFT
    }


def measure(args: argparse.Namespace) -> dict | None:
    """Runs what is missing; means and intervals over seeds."""
    settings = {"policy": POLICY.name, "chains": args.chains, "questions": args.questions, "epochs": args.epochs}
    results = Cells(args.output, settings, args.fresh)
    kept = args.work_dir / "settings.json"
    if kept.exists():
        refuse_other_settings(f"--work-dir {args.work_dir}", json.loads(kept.read_text()), settings, "name another")
    write_atomically(kept, json.dumps(settings))
    if "sft" in args.parts and not results.fill(tune_cells(args), args.seconds):
        return None
    cells: dict[str, Callable[[], dict]] = {}
    for seed in args.seeds:
        folder = args.work_dir / f"seed{seed}"
        if "sft" in args.parts:
            rates = chosen_rates(results.filled)
            cells[f"sft/{seed}"] = lambda f=folder, s=seed, rates=rates: sft_cell(f, args, rates, s)
        if "prm" in args.parts:
            cells[f"prm/{seed}"] = lambda f=folder, s=seed: prm_cell(f, args, s)
    if not results.fill(cells, args.seconds, args.jobs):
        return None
    summary = summarised(results.filled)
    results.write(summary)
    return summary


def summarised(cells: dict[str, dict]) -> dict:
    """By part and kind the mean of each figure with its 95% interval over seeds, and the targets."""
    summary: dict = {}
    for part, kinds in (("sft", ("before", *SFT)), ("prm", PRMS)):
        seeds = [cell for name, cell in cells.items() if name.startswith(f"{part}/")]
        if seeds:
            summary[part] = {kind: over_seeds([cell[kind] for cell in seeds]) for kind in kinds}
    if "sft" in summary:
        gains = [
            cell["long"]["recovery"] - cell["shortest"]["recovery"]
            for name, cell in cells.items()
            if name[:4] == "sft/"
        ]
        summary["recovery_gain"] = [round(value, 4) for value in mean_interval(gains) if value is not None]
        summary["rates"] = chosen_rates(cells)
    return summary


def over_seeds(figures: list[dict]) -> dict:
    """Mean and interval of each figure; of the seeds that have it."""
    known = {name: [row[name] for row in figures if row[name] is not None] for name in figures[0]}
    return {
        name: [round(v, 4) for v in mean_interval(values) if v is not None] for name, values in known.items() if values
    }


def build_parser() -> argparse.ArgumentParser:
    """The flags of this benchmark."""
    flags = parser("long_chains", __doc__)
    flags.add_argument("--parts", nargs="+", default=["sft", "prm"], choices=["sft", "prm"])
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    flags.add_argument("--chains", type=int, default=1000, help="training questions that chains are written for")
    flags.add_argument("--questions", type=int, default=200, help="held-out ones, and as many with a planted mistake")
    flags.add_argument("--epochs", type=int, default=4, help="of fine-tuning")
    add_jobs_flag(flags)
    return flags


if __name__ == "__main__":
    given_parser = build_parser()
    given = given_parser.parse_args()
    positive(given_parser, given, "chains", "questions", "epochs", "jobs")
    sys.exit(main("long_chains", measure, given))
