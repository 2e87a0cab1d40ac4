"""Selected responses -> rows for `openrlhf.cli.train_sft`.

    {"input": "Q: 12+35=?\\n",            the question in the input template, or in the chat the user's turn
     "output": "12+35=47\\n...<eos>",     the response as the policy wrote it
     "id": "5f0c...", "score": 0.93}      of the question; aggregated step scores, null without a PRM

Without a chat template the output ends with the policy's end-of-text token: `train_sft` would otherwise strip the last
newlines and teach the policy to end with a space. With one, the template ends the turn.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.samples_file import SamplesFile
from openrlhf_prm.generation.selection import SelectionOptions, select
from vllm_prm.durable_file import json_line, write_atomically


def write_selection(
    output: Path,
    questions: Sequence[Question],
    samples: SamplesFile,
    options: SelectionOptions,
    sft_row: Callable[[Question, str], dict],
) -> dict[str, int]:
    """Selects among the samples of each question and writes the rows, in the order of the questions; the file appears
    whole or not at all. Returns the counts; `duplicates`, `below_score` and `beyond_cap` are right responses left out.
    """
    by_id = {question.id: question for question in questions}
    names = ("sampled", "truncated", "correct", "below_score", "duplicates", "beyond_cap", "kept")
    counts = Counter(dict.fromkeys((*names, "questions_without_correct", "questions_without_any"), 0))
    rows: dict[str, list[dict]] = {}
    for identity, sampled in samples.questions():
        if identity not in by_id:
            continue
        chosen = select(sampled.candidates, options)
        counts.update(
            sampled=sampled.sampled,
            truncated=sampled.truncated,
            correct=len(sampled.candidates),
            below_score=chosen.below_score,
            duplicates=chosen.duplicates,
            beyond_cap=chosen.beyond_cap,
            kept=len(chosen.kept),
            questions_without_correct=not sampled.candidates,
            questions_without_any=not chosen.kept,
        )
        rows[identity] = [
            {**sft_row(by_id[identity], one.response), "id": identity, "score": score} for one, score in chosen.kept
        ]
    write_atomically(output, (json_line(row) for question in questions for row in rows[question.id]))
    return {"questions": len(questions), **counts}


def sft_flags(output: str, chat_template: bool) -> str:
    """The flags with which `openrlhf.cli.train_sft` reads the file."""
    flags = ["--data.dataset", output, "--data.input_key", "input", "--data.output_key", "output"]
    return shlex.join([*flags, *(["--data.apply_chat_template"] if chat_template else ["--data.input_template", "{}"])])
