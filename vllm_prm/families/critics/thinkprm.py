r"""ThinkPRM (arXiv:2504.16828): a long critique of numbered steps. Two ways to score with it:

    scores="boxes"       one critique of the whole solution; a step's score is 1 for `\boxed{correct}`, 0 for
                         `\boxed{incorrect}`, and 0 after an incorrect step, where the critic stops judging
    scores="prefixes"    one critique of each prefix; s_k = exp(z_yes) / (exp(z_yes) + exp(z_no)), z the logits where
                         the model goes on after the critique of the first k steps and "Is the solution correct?"

The authors publish the second (`thinkprm_api.py`), the model's card prints the first. Both write "Step i: " before each
step, whatever the step says of its number. A critique ends where it would go on to a step there is not, to the question
about the solution, or out of its thoughts. As published, the question is asked after a critique that is empty or was
cut off, too; both are counted.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vllm_prm.families.critics.critic import (
    Ask,
    Conversation,
    CritiqueStyle,
    Verdicts,
    chance,
    one_critique,
    opposed,
    user,
)
from vllm_prm.families.critics.verdicts import Malformed, step_verdicts

BEGINNING = "\nLet's verify step by step:"
QUESTION = "Is the solution correct?"
_NUMBER = re.compile(r"Step \d+:")


class ThinkPRM(CritiqueStyle):
    """Boxes, or P(yes) of each prefix; see the module."""

    sampling: ClassVar = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096}
    own_options: ClassVar = {"scores": "boxes"}

    def __init__(self, decision: str = "", choices: tuple[int, int] | None = None) -> None:
        """`decision`: what is written after a critique to have the solution judged, up to the `choices` yes and no;
        without choices boxes are read."""
        self.decision = decision
        self.choices = choices

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, path: str, sampling: Mapping[str, Any], *, scores: str = "boxes"):
        """`ValueError` if decisions are wanted and the tokenizer writes yes and no alike."""
        if scores == "boxes":
            return cls()
        shared, choices = opposed(tokenizer, path, " yes", " no")
        return cls(f"\n{QUESTION}{shared}", choices)

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """One critique, or one and a decision for each prefix."""
        if self.choices is not None:
            return (yield from self._prefixes(question, steps))
        ask = self._ask(question, steps)
        critique = yield ask
        if critique is None:
            return Verdicts([None] * len(steps))
        text = critique.before(ask.stop)
        verdicts = step_verdicts(text, steps)
        correct = verdicts if isinstance(verdicts, Malformed) else [float(verdict) for verdict in verdicts]
        return one_critique(critique, text, correct, len(steps))

    def _prefixes(self, question: str, steps: Sequence[str]) -> Conversation:
        verdicts = Verdicts([])
        for count in range(1, len(steps) + 1):
            ask = self._ask(question, steps[:count])
            critique = yield ask
            if critique is None:
                break
            text = critique.before(ask.stop)
            verdicts.count(critique, text)
            decided = ask.prefix + text + self.decision
            answer = yield Ask(ask.messages, decided, max_tokens=1, choices=self.choices)
            if answer is None:
                break
            verdicts.judge(count, chance(answer.log_probs[0]))
        return verdicts.filled(len(steps))

    def _ask(self, question: str, steps: Sequence[str]) -> Ask:
        plain = [_NUMBER.sub("", step).strip() for step in steps]
        solution = "\n".join(f"Step {number}: {step}" for number, step in enumerate(plain, start=1))
        prompt = (
            "You are given a math problem and a proposed step-by-step solution:\n\n"
            f"[Math Problem]\n\n{question}\n\n[Solution]\n\n{solution}\n\n"
            "Review and critique each step in the proposed solution to determine whether each step is correct. "
            "If the solution is incomplete, only verify the provided steps."
        )
        return Ask([user(prompt)], BEGINNING, stop=(f"Step {len(steps) + 1}:", QUESTION, "</think>"))
