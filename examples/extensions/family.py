"""A PRM family of one's own: a causal LM that is asked after every step whether it is right.

    vllm-prm serve MODEL --family examples/extensions/family.py:AskedPRM --family-options '{"good": " Yes"}'

The model reads `{question}\\n` and, for every step, `{step}{ask}`. With z its logits at the end of an `ask`,

    s = exp(z_good) / (exp(z_good) + exp(z_bad))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families import Rendered
from vllm_prm.families.checkpoint_family import CheckpointFamily, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.prm_family import Question, single_token_id


@dataclass(frozen=True, kw_only=True)
class AskedOptions:
    """`ask`: written after every step. `good`, `bad`: the answers, a token each."""

    ask: str = "\nIs this right?"
    good: str = " Yes"
    bad: str = " No"


class AskedPRM(CheckpointFamily):
    """The answer to a question after every step; see the module's formula."""

    Options = AskedOptions

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        super().__init__(tokenizer, **arguments)
        answers = (self.options.good, self.options.bad)
        self.reward_token_ids = tuple(single_token_id(tokenizer, answer, self.path) for answer in answers)

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        require_list(steps)
        writer = self.begun(question, bos=(), suffix="\n", chat=False)
        for step in steps:
            writer.separate()
            writer.content(step)
            writer.separate()
            writer.recipe(self.options.ask)
            writer.mark()
        return writer.rendered()

    def decode(self, raw: Rows) -> list[float]:
        return [good for good, _ in class_probabilities(raw, 2)]
