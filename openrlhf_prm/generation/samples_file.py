"""The sampled questions on disk: one line each, written the moment a question is finished."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from openrlhf_prm.data.questions import Question
from openrlhf_prm.generation.sampler import Candidate, SampledQuestion
from vllm_prm.durable_file import DurableFile


class SamplesFile(DurableFile):
    """`SampledQuestion`s under the questions' ids."""

    def append_all(self, finished: Sequence[tuple[Question, SampledQuestion]]) -> None:
        """Writes questions and returns when they are on disk."""
        self.append([{"key": question.id, **asdict(sampled)} for question, sampled in finished])

    def questions(self) -> Iterator[tuple[str, SampledQuestion]]:
        """(id, what was sampled) of every question in the file."""
        for row in self.rows():
            candidates = [Candidate(**candidate) for candidate in row["candidates"]]
            yield row["key"], SampledQuestion(row["sampled"], row["truncated"], candidates)
