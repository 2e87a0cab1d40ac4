"""The responses of one question, sampled and judged. Runs where annotators run: in an actor beside its engine."""

from dataclasses import dataclass

from openrlhf_prm.annotation.rollouts import Annotator, SamplingOptions
from openrlhf_prm.options import option


@dataclass(frozen=True, kw_only=True)
class SamplerOptions(SamplingOptions):
    """How many responses a question gets, and how they are sampled."""

    n_samples_per_prompt: int = option(16, "responses per question", least=1)
    max_new_tokens: int = option(
        1024, "token limit of a response; one cut there is wrong; less where the PRM's context is too short", least=1
    )

    def __post_init__(self):
        super().__post_init__()
        self.require_random_samples(self.n_samples_per_prompt)


@dataclass(frozen=True)
class Candidate:
    """A response with the right answer: its text, its S steps, its length in tokens, and S step scores, or None where
    no PRM scored it.
    """

    response: str
    steps: list[str]
    tokens: int
    step_scores: list[float | None] | None = None


@dataclass(frozen=True)
class SampledQuestion:
    """The right responses of a question, in the order of their sampling, and how many there were in all; `truncated`
    ones were cut at the token limit and count as wrong.
    """

    sampled: int
    truncated: int
    candidates: list[Candidate]


class Sampler(Annotator):
    """Samples responses and keeps the right ones."""

    Options = SamplerOptions

    async def annotate(self, prompt: str, label: str) -> SampledQuestion:
        """The responses to a prompt (template applied). Errors of the engine are raised."""
        solutions = await self.rollouts_of(prompt, label).solutions(self.options.n_samples_per_prompt)
        right = [solution for solution in solutions if solution.rollout.correct]
        return SampledQuestion(
            sampled=len(solutions),
            truncated=sum(solution.rollout.truncated for solution in solutions),
            candidates=[
                Candidate(solution.response, solution.steps, len(solution.rollout.token_ids)) for solution in right
            ],
        )
