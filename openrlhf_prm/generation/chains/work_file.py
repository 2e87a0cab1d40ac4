"""Finished questions on disk, and the files that are made of them: in the order of the questions, whole or not at all.

`OUTPUT.work.jsonl` has a row per question, on disk the moment it is finished; from it are made

    OUTPUT                 rows that are kept (schema: `rows`)
    OUTPUT.rejected.jsonl  rows that are not, with `reasons`
    OUTPUT.sft.jsonl       {"input", "output", "id"} for `openrlhf.cli.train_sft`
    OUTPUT.shortest.jsonl  the same without the detours
    OUTPUT.labels.jsonl    step labels for `openrlhf-prm train-prm` (schema: `annotation.records`)
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.checks import LengthOptions, faults
from openrlhf_prm.generation.chains.rows import label_records
from vllm_prm.durable_file import DurableFile, json_line, write_atomically


def beside(output: Path, what: str) -> Path:
    """The file of that kind which belongs to an output."""
    return output.with_name(f"{output.name}.{what}.jsonl")


def _by_id(row: dict, before: int) -> tuple[str, int, int]:
    return row["id"], 0, 1


class WorkFile(DurableFile):
    """Rows under their questions' ids."""

    def __init__(self, path: Path, settings: dict):
        super().__init__(path, settings, _by_id)

    def append_all(self, finished: Sequence[tuple[Question, dict]]) -> None:
        """Writes rows and returns when they are on disk."""
        self.append([row for _, row in finished])

    def in_order(self, questions: Sequence[Question]) -> Iterator[dict]:
        """The rows of these questions, one at a time: memory holds their places alone."""
        places, lines = {}, list(map(len, self.lines()))
        offset = self.path.stat().st_size - sum(lines)
        for line, length in zip(self.lines(), lines, strict=True):
            places[json.loads(line)["id"]] = offset, length
            offset += length
        with open(self.path, "rb") as file:
            for question in questions:
                start, length = places[question.id]
                file.seek(start)
                yield json.loads(file.read(length))


def write_outputs(
    output: Path,
    questions: Sequence[Question],
    work: WorkFile,
    length: LengthOptions,
    sft_row: Callable[[Question, str], dict],
) -> dict:
    """Checks the rows and writes every file; returns the counts, the reasons among them."""
    by_id = {question.id: question for question in questions}

    def sft(key: str) -> Callable[[dict], list[dict]]:
        return lambda row: [{**sft_row(by_id[row["id"]], row[key]), "id": row["id"]}]

    files: dict[Path, Callable[[dict], list[dict]]] = {
        output: lambda row: [row],
        beside(output, "sft"): sft("response"),
        beside(output, "shortest"): sft("shortcut"),
        beside(output, "labels"): label_records,
    }

    def lines(kept: bool, rows_of: Callable[[dict], list[dict]]) -> Iterator[bytes]:
        for row in work.in_order(questions):
            reasons = faults(row, length)
            if bool(reasons) != kept:
                yield from map(json_line, rows_of(row if kept else {**row, "reasons": reasons}))

    write_atomically(beside(output, "rejected"), lines(False, lambda row: [row]))
    for path, rows_of in files.items():
        write_atomically(path, lines(True, rows_of))
    return counts(work.in_order(questions), length)


def counts(rows: Iterator[dict], length: LengthOptions) -> dict:
    """What came of the questions, and what it cost. Rows may be left out for several reasons."""
    names = ("kept", "rejected", "calls", "prompt_tokens", "completion_tokens", "kept_tokens", "shortcut_tokens")
    totals, reasons = Counter(dict.fromkeys(names, 0)), Counter()
    for row in rows:
        why = faults(row, length)
        reasons.update(why)
        totals["rejected" if why else "kept"] += 1
        totals.update({name: row[name] for name in ("calls", "prompt_tokens", "completion_tokens")})
        if not why:
            totals.update(kept_tokens=row["tokens"], shortcut_tokens=row["shortcut_tokens"])
    return {**totals, "reasons": dict(sorted(reasons.items()))}
