"""Drafts as rows, and what a row gives for training.

A row of OUTPUT::

    {"id": "9f2c...", "question": "Q: 8+7=?\\n", "label": "15", "scheme": "deliberate",
     "plan": ["Add the units", ...],
     "events": [{"role": "elaborator", "node": 1, "parent": 0, "try": 0, "text": "8+7=16", "score": null,
                 "verdict": null, "target": null, "tokens": 7, "prompt_tokens": 31, "seed": 123}, ...],
     "chain": [{"kind": "failed", "text": "8+7=16", "node": 1, "parent": 0, "target": null, "score": 0.1,
                "wrong": true},
               {"kind": "reflection", "text": "Wait, ...", "node": null, "parent": null, "target": 0, "score": null,
                "wrong": false}, ...],            kinds: plan, step, failed, reflection, check, answer
     "response": "8+7=16\\n\\nWait, ...",           the chain's parts, joined
     "correct": true, "tokens": 40,               of the response, by the policy's tokenizer
     "shortcut": "8+7=15\\n\\n...", "shortcut_tokens": 12,      the way to the answer without its detours
     "calls": 9, "prompt_tokens": 420, "completion_tokens": 80,   what the chain cost
     "rollouts": 0,                               that each score is the right share of; 0 for other scores
     "settings": "5d1f...", "fault": null}        a hash of all it depends on; why there is no chain

Node 0 is the question. Rows that are left out have `reasons` besides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.chains.draft import Draft

ON_THE_WAY = ("step", "answer")
"""Kinds of parts that lead from the question to the answer."""


def chain_row(
    question: Question,
    scheme: str,
    draft: Draft,
    separator: str,
    count: Callable[[str], int],
    settings: str,
    rollouts: int = 0,
) -> dict:
    """The row of a draft. `count`: tokens of a text. `rollouts`: those behind each score, where it is their share."""
    shortcut = separator.join(part.text for part in draft.parts if part.kind in ON_THE_WAY) if draft.response else ""
    return {
        "id": question.id,
        "question": question.question,
        "label": question.label,
        "scheme": scheme,
        "plan": draft.plan,
        "events": [event.as_row() for event in draft.events],
        "chain": [asdict(part) for part in draft.parts],
        "response": draft.response,
        "correct": draft.correct,
        "tokens": count(draft.response),
        "shortcut": shortcut,
        "shortcut_tokens": count(shortcut),
        "calls": sum(event.seed is not None for event in draft.events),
        "prompt_tokens": sum(event.prompt_tokens for event in draft.events),
        "completion_tokens": sum(event.tokens for event in draft.events),
        "rollouts": rollouts,
        "settings": settings,
        "fault": draft.fault,
    }


def label_records(row: Mapping) -> list[dict]:
    """Step labels of a kept row, in the schema of `annotation.records`: of the whole chain, and of each branch of its
    tree that was taken back. None of a row without an answer.

    A step that was found wrong is 0, everything else 1. In the whole chain that is so after a reflection, too: the text
    stands again where it stood before the mistake, and that is what a PRM is to learn. Scores that are shares of
    rollouts are `mc_values` and soft labels, a reflection's that of the step it goes back to; other soft labels are the
    hard ones.
    """
    if row["correct"] is None:
        return []
    chain = row["chain"]
    solutions = [(row["response"], chain, True)]
    steps = {part["node"]: part for part in chain if part["kind"] in ("step", "failed", "answer")}
    inner = {part["parent"] for part in steps.values() if part["kind"] == "failed"}
    for part in steps.values():
        if part["kind"] == "failed" and part["node"] not in inner:
            branch, node = [], part["node"]
            while node in steps:
                branch.insert(0, steps[node])
                node = steps[node]["parent"]
            solutions.append(("\n".join(one["text"] for one in branch), branch, False))
    scores = {node: part["score"] for node, part in steps.items()} if row["rollouts"] else {}
    return [
        {**_head(row, index, len(solutions)), **_labels(row["rollouts"], scores, response, parts, correct)}
        for index, (response, parts, correct) in enumerate(solutions)
    ]


def _head(row: Mapping, index: int, of: int) -> dict:
    return {
        "id": row["id"],
        "solution": index,
        "solutions": of,
        "question": row["question"],
        "label": row["label"],
        "root": {"right": 0, "rollouts": 0, "visits": 0},
    }


def _labels(rollouts: int, scores: Mapping, response: str, parts: Sequence[Mapping], correct: bool) -> dict:
    labels = [int(not part["wrong"]) for part in parts]
    measured = [scores.get(part["node"]) for part in parts[:-1]]  # the last step has its outcome
    stands_at = [part["target"] if part["kind"] == "reflection" else part["node"] for part in parts[:-1]]
    soft = [*map(scores.get, stands_at), None]
    counts = [0 if value is None else rollouts for value in measured] + [0]
    nothing = [0] * len(parts)
    return {
        "response": response,
        "steps": [part["text"] for part in parts],
        "mc_values": [*measured, float(correct)],
        "hard_labels": labels,
        "soft_labels": [float(label if value is None else value) for label, value in zip(labels, soft, strict=True)],
        "right": [*(round((value or 0.0) * rollouts) for value in measured), 0],
        "rollouts": counts,
        "visits": nothing,
        "correct": correct,
        "truncated": False,
        "endings": nothing,
        "copies": 1,
    }
