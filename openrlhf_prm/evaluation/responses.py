"""One graded response, as it stands in a line of `samples.jsonl`, and the file itself."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vllm_prm.durable_file import write_atomically


@dataclass(frozen=True)
class LaterAttempt:
    """A further attempt of a policy that was asked to look at its first one again."""

    response: str
    answer: str | None
    correct: bool
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class GradedResponse:
    """A response with what is known about it.

    `index` numbers the question (from 0), so that two evaluations of one file pair up; `sample` numbers the sampled
    responses of a question and is None for the greedy one. `steps`, `step_scores` and `step_checks` have one entry
    per step; scores are None without a PRM, checks without a step checker. `correct` judges the text as it stands,
    cut short (`truncated`) or not. `later` are further attempts, None where none were asked for; everything else is of
    the first one.
    """

    index: int
    kind: str  # "greedy" or "sample"
    sample: int | None
    question: str
    label: str
    response: str
    answer: str | None
    correct: bool
    steps: list[str]
    step_scores: list[float] | None
    step_checks: list[bool] | None
    tokens: int
    truncated: bool
    later: list[LaterAttempt] | None = None

    def __post_init__(self):
        for name in ("step_scores", "step_checks"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.steps):
                raise ValueError(f"{name} must align with steps: got {len(values)}, expected {len(self.steps)}")


def by_question(responses: Iterable[GradedResponse]) -> dict[int, list[GradedResponse]]:
    """Responses grouped by question in the order of the questions; within a question in the order of the samples."""
    groups: dict[int, list[GradedResponse]] = {}
    for response in responses:
        groups.setdefault(response.index, []).append(response)
    return {index: sorted(groups[index], key=lambda r: (r.kind != "greedy", r.sample or 0)) for index in sorted(groups)}


def write_samples(path: Path, responses: Sequence[GradedResponse]) -> None:
    """Writes one JSON object per line; the file appears whole or not at all."""
    write_atomically(path, "".join(json.dumps(asdict(response), ensure_ascii=False) + "\n" for response in responses))


def read_samples(path: Path) -> list[GradedResponse]:
    """Reads what `write_samples` wrote; keys that are not known are passed over.

    Raises ValueError naming file and line where a line is not a response.
    """
    names = [field.name for field in fields(GradedResponse) if field.name != "later"]
    responses = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            later = None if row.get("later") is None else [LaterAttempt(**attempt) for attempt in row["later"]]
            responses.append(GradedResponse(**{name: row[name] for name in names}, later=later))
        except (json.JSONDecodeError, TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} line {number} is not a graded response: {error!r}") from error
    return responses
