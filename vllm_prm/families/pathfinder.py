"""PathFinder-PRM (arXiv:2505.19706): errors first, then the reward, in two passes that depend on one another.

The tokenizer's chat template, for each step:

    user:      SYSTEM + "\\n\\n Question: " + question
    assistant: step_1 + "\\n\\n" + ... + step_{k-1} + "\\n\\nCurrent Step: " + step_k
               + " Math reasoning: <extra>, Consistency: <extra>"

Each `<extra>` becomes `<+>` or `<->`, whichever is likelier at the token before it. With an error, a `<->`, the score
is -1. Else the second pass has the labels in their places, and ", Correctness: <extra>" behind them:

    s_k = exp(z_<+>) / (exp(z_<+>) + exp(z_<->)),   z the logits at the token before that `<extra>`

Source: the authors' reward-guided search (`PathFinderPRM.py`), with the roles of their training data; the search itself
gives the solution to the user.
"""

import math
from collections.abc import Sequence
from typing import Any

from vllm_prm.families.checkpoint_family import only_question
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.prefix_family import PrefixFamily, Reading
from vllm_prm.families.prm_family import Question, single_token_id
from vllm_prm.families.writing import Writer, chat_turns

SYSTEM = (
    "You are a Math Teacher. Given a question and a student's solution, evaluate the mathematical correctness, logic "
    "consistency of the current step and whether it will lead to the correct final solution"
)
GOOD, BAD, BLANK = "<+>", "<->", "<extra>"


class PathFinderFamily(PrefixFamily):
    """Math errors, consistency errors, then correctness; see the module's formula."""

    name = "pathfinder"
    published = {"PathFinder-PRM-7B": {}}
    score_range = (-1.0, 1.0)

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` without a chat template or one of the three tokens."""
        super().__init__(tokenizer, **arguments)
        self.reward_token_ids = tuple(single_token_id(tokenizer, token, self.path) for token in (GOOD, BAD))
        single_token_id(tokenizer, BLANK, self.path)
        chat_turns(tokenizer, ["user", "assistant"], self.path)

    def tags(self) -> Sequence[str]:
        return (GOOD, BAD, BLANK)

    def read(self, question: Question, steps: Sequence[str]) -> Reading:
        """One prompt, read before both blanks, and, where no error was found, another."""
        labels = self.decode((yield self._prompt(question, steps, [BLANK]).rendered()))
        if any(math.isnan(chance) for chance in labels):
            return math.nan
        if min(labels) < 0.5:
            return -1.0
        second = self._prompt(question, steps, [GOOD, GOOD], marked=False)
        second.recipe(", Correctness: ")
        second.mark()
        [score] = self.decode((yield second.rendered()))
        return score

    def _prompt(self, question: Question, steps: Sequence[str], labels: Sequence[str], marked: bool = True) -> Writer:
        """The prompt with the first of its blanks filled by `labels`; `marked`: read before each blank."""
        turns, _ = chat_turns(self.tokenizer, ["user", "assistant"], self.path)
        writer = self.writer()
        writer.recipe(f"{turns[0].before}{SYSTEM}\n\n Question: ")
        writer.content(only_question(question).rstrip(turns[0].right))
        writer.recipe(turns[1].before)
        for earlier in steps[:-1]:
            writer.content(earlier)
            writer.recipe("\n\n")
        writer.recipe("Current Step: ")
        writer.content(steps[-1])
        for name, label in zip((" Math reasoning: ", ", Consistency: "), [*labels, ""], strict=False):
            writer.recipe(name)
            if marked:
                writer.mark()
            writer.recipe(label)
        return writer

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over the two answers, the first: (S, 2) -> S."""
        return [good for good, _ in class_probabilities(raw, 2)]
