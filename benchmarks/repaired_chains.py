"""Chains of the arithmetic task with mistakes that are taken back, as `openrlhf-prm generate` writes them, and what
is trained and measured on them.

Mistakes and steps are the policy's own; the task's exact checker finds a mistake at once. The policy's vocabulary has
no words, so a step is taken back by `- > ` and the step the chain goes back to, or by `- > =?` and the question's
first sum anew.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.runs import run_command
from openrlhf_prm.data.questions import KEYS
from openrlhf_prm.generation.chains.rows import ON_THE_WAY, label_records
from openrlhf_prm.tasks.arithmetic import careful_step, operands_of, questions, quick_step
from vllm_prm.durable_file import write_atomically

ROLES = """
separator: "\\n"
roles: {elaborator: {form: text, prompt: "{question}{steps}", stop: ["\\n"], max_tokens: 64}}
phrases: {doubt: ["- >"], wrong_answer: ["- >"], dead_end: ["- >"], back: ["{step}"], restart: ["=?"]}
"""
PLANTED = ("habit", "slip")
"""Kinds of planted mistakes: the policy's own, a forgotten carry; one it never makes, a careful step's wrong result."""

_SUM = re.compile(r"(\d+)\+[a-z]?(\d+)(?:=|:.* > )(\d+)")


def generate(folder: Path, policy: Path, split: str, count: int, seed: int) -> Path:
    """`count` questions' chains; the output of `generate`, beside it the files for training. Goes on where it was
    interrupted.
    """
    chains, data, roles = folder / f"{split}_chains.jsonl", folder / f"{split}_questions.jsonl", folder / "roles.yaml"
    if not chains.exists():
        rows = ({"question": question, "label": label} for question, label in questions(split, count, seed))
        write_atomically(data, "".join(json.dumps(row) + "\n" for row in rows))
        write_atomically(roles, ROLES)
        flags = [
            *("--actor.model_name_or_path", policy, "--data.input", data, "--data.output", chains, *KEYS),
            *("--roles", roles, "--chain.no_plan", "--chain.no_recheck", "--chain.tries", 4),
            *("--critic.kind", "exact", "--critic.task", "arithmetic", "--train.seed", seed),
        ]
        run_command("openrlhf_prm.cli.generate", flags, folder / f"generate_{split}.log")
    return chains


def read_rows(path: Path) -> list[dict]:
    """The rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_equal_tokens(chains: Path, folder: Path) -> dict[str, dict]:
    """Rows for `train_sft` with as many response tokens of either kind: `long`, whole chains, and `shortest`, without
    their detours. The shortest are all there are; of the long ones the first that hold no more tokens. By kind: the
    file, its rows, its tokens, their mean.
    """
    rows = read_rows(chains)
    budget = sum(row["shortcut_tokens"] for row in rows)
    taken: dict[str, dict] = {}
    for kind, text, tokens in (("long", "response", "tokens"), ("shortest", "shortcut", "shortcut_tokens")):
        kept, total = [], 0
        for row in rows:
            if total + row[tokens] > budget:
                break
            total += row[tokens]
            kept.append({"input": row["question"], "output": row[text] + "\n"})
        path = folder / f"{kind}.sft.jsonl"
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        taken[kind] = {"file": str(path), "rows": len(kept), "tokens": total, "mean_tokens": total / len(kept)}
    return taken


def planted_questions(split: str, count: int, seed: int) -> Iterator[dict]:
    """`count` rows (question, label, kind) whose question ends in right steps and a wrong one; kinds take turns."""
    rng, written = random.Random(f"planted-{split}-{seed}"), 0
    for question, label in questions(split, 20 * count, seed):
        total, *rest = operands_of(question)
        totals = [total]
        for operand in rest:
            totals.append(totals[-1] + operand)
        kind = PLANTED[written % len(PLANTED)]
        places = [
            place
            for place, operand in enumerate(rest)
            if kind == "slip" or quick_step(totals[place], operand)[1] != totals[place + 1]
        ]
        if not places:
            continue
        place = rng.choice(places)
        lines = [
            rng.choice((quick_step, careful_step))(totals[before], rest[before])[0]
            if quick_step(totals[before], rest[before])[1] == totals[before + 1]
            else careful_step(totals[before], rest[before])[0]
            for before in range(place)
        ]
        if kind == "habit":
            lines.append(quick_step(totals[place], rest[place])[0])
        else:
            line, right = careful_step(totals[place], rest[place])
            slipped = rng.choice([value for value in range(right - 9, right + 10) if value not in (right, right - 10)])
            lines.append(line.removesuffix(str(right)) + str(slipped))
        yield {"question": question + "".join(line + "\n" for line in lines), "label": label, "kind": kind}
        written += 1
        if written == count:
            return


def has_false_sum(steps: Sequence[str]) -> bool:
    """Whether one of the lines is a sum with another result than it has."""
    sums = (match.groups() for step in steps if (match := _SUM.fullmatch(step.strip())))
    return any(int(a) + int(b) != int(result) for a, b, result in sums)


def clean_records(chains: Path) -> list[dict]:
    """Label records without any repair, as many as `generate` writes for these chains: for each question the way to
    the answer without detours, all right, and every branch that was taken back.
    """
    records = []
    for row in read_rows(chains):
        way = [part["text"] for part in row["chain"] if part["kind"] in ON_THE_WAY]
        records.append({"question": row["question"], "steps": way, "hard_labels": [1] * len(way)})
        records += [{key: record[key] for key in ("question", "steps", "hard_labels")} for record in branches(row)]
    return records


def branches(row: dict) -> list[dict]:
    """The label records of a chain's branches that were taken back, without that of the whole chain."""
    return label_records(row)[1:]
