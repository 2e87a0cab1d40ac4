"""Families that score each step by prompts of its own: the solution up to that step, and what belongs behind it.

Where something stands behind a solution that the model was trained to read once, at its end (a token that ends the
text, a question), no single pass has all scores. A step's score is then the score of the solution cut after it:

    s_k = score(question, step_1 ... step_k)

Prompts of one solution begin alike, so the engine's prefix cache spares most of their tokens.
"""

from abc import abstractmethod
from collections.abc import Generator, Sequence

from vllm_prm.families.checkpoint_family import CheckpointFamily, require_list
from vllm_prm.families.decoding import Rows
from vllm_prm.families.prm_family import Question, Rendered

Reading = Generator[Rendered, Rows, float]
"""Yields a prompt, is sent the rows read at its positions, and returns the score."""


class PrefixFamily(CheckpointFamily):
    """A prompt, or several, for each prefix of a solution; see the module."""

    scorer = "vllm_prm.prefix_scorer:PrefixScorer"
    one_prompt = False
    response_splitter = "\n\n"

    @abstractmethod
    def read(self, question: Question, steps: Sequence[str]) -> Reading:
        """The reading of `steps`, at least one: its result is the score of the last."""

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """The first prompt for all of `steps`, and where it is read. No step: no prompt."""
        require_list(steps)
        return next(self.read(question, steps)) if steps else Rendered([], [])
