r"""How critics are asked about a solution, and what their answers mean. One class and one registry line each.

A style is a conversation: `judge` yields what to generate next, is sent what was generated, and returns the verdicts.
It knows nothing of engines, so the same code runs offline and asynchronously. Generated code is text like any other.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from vllm_prm.families.decoding import sigmoid
from vllm_prm.families.verdicts import Malformed, first_error, judgement, step_verdicts


@dataclass(frozen=True)
class Ask:
    """Continue a chat of `messages` whose answer begins with `prefix`, until one of the texts `stop` or `max_tokens`.

    `in_turn`: the answer goes on in the last message's turn, for models that were trained so; else it is a turn of the
    assistant. `choices`: two token ids whose log-probabilities are wanted at every generated token, or none.
    """

    messages: list[dict[str, str]]
    prefix: str = ""
    in_turn: bool = False
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    choices: tuple[int, int] | None = None


@dataclass(frozen=True)
class Critique:
    """What was generated: `text` (with the stop text) and `token_ids`. `finished`: not cut off by a limit of tokens.

    `log_probs`: those of the two `choices` at each token, before temperature; empty without choices. `cached_tokens`:
    tokens of the prompt that the engine did not forward.
    """

    text: str
    token_ids: list[int]
    finished: bool
    log_probs: list[tuple[float, float]] = field(default_factory=list)
    cached_tokens: int = 0


@dataclass
class Verdicts:
    """One sample's view of a solution.

    `correct`: per step the probability that it is correct, NaN where the critique was malformed, None where the
    conversation no longer fitted into the context. `malformed`: what was wrong with each judgement that was.
    `critiques`: the texts.
    """

    correct: list[float | None]
    malformed: list[str] = field(default_factory=list)
    critiques: list[str] = field(default_factory=list)


Conversation = Generator[Ask, Critique | None, Verdicts]
"""Yields `Ask`, is sent the `Critique`, or None where the context has no room left; returns `Verdicts`."""


class CritiqueStyle(ABC):
    """A way of asking for critiques and of reading them."""

    sampling: ClassVar[dict[str, Any]]
    """The published sampling parameters, with `max_tokens` for one critique."""
    own_options: ClassVar[Mapping[str, Any]] = {}
    """Options of the family that this style alone reads, with their defaults."""

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, path: str, **own_options: Any) -> "CritiqueStyle":
        """The style for a model's tokenizer. `ValueError` naming `path` if that cannot express the verdicts."""
        return cls(**own_options)

    @abstractmethod
    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """The conversation about `steps`, at least one."""


def _whole(critique: Critique, correct: Sequence[float] | Malformed, steps: int) -> Verdicts:
    """The verdicts of one critique about all steps. One that was cut off has not come to its last word."""
    if not critique.finished:
        correct = Malformed("cut off")
    if isinstance(correct, Malformed):
        return Verdicts([math.nan] * steps, [correct.reason], [critique.text])
    return Verdicts(list(correct), [], [critique.text])


class ThinkPRM(CritiqueStyle):
    r"""ThinkPRM (arXiv:2504.16828): one critique, with `\boxed{correct}` or `\boxed{incorrect}` for each step. A step
    score of one sample is 1 or 0; 0 too after an incorrect step, where the critic stops judging."""

    sampling: ClassVar = {"temperature": 0.7, "top_p": 1.0, "max_tokens": 4096}

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """One critique."""
        solution = "\n".join(f"Step {number}: {step}" for number, step in enumerate(steps, start=1))
        prompt = (
            "You are given a math problem and a proposed step-by-step solution:\n\n"
            f"[Math Problem]\n\n{question}\n\n[Solution]\n\n{solution.strip()}\n\n"
            "Review and critique each step in the proposed solution to determine whether each step is correct. "
            "If the solution is incomplete, only verify the provided steps."
        )
        critique = yield Ask([_user(prompt)], prefix="\nLet's verify step by step:")
        if critique is None:
            return Verdicts([None] * len(steps))
        verdicts = step_verdicts(critique.text, steps)
        correct = verdicts if isinstance(verdicts, Malformed) else [float(verdict) for verdict in verdicts]
        return _whole(critique, correct, len(steps))


class ProcessBenchCritic(CritiqueStyle):
    r"""The critic of ProcessBench (arXiv:2412.06559): the index of the first wrong paragraph in `\boxed{}`, -1 for
    none. A sample's step score is 1 before that paragraph, and 0 from it on: nobody vouches for what follows an
    error."""

    sampling: ClassVar = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "max_tokens": 4096}

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """One critique."""
        tagged = "\n\n".join(f"<paragraph_{i}>\n{step}\n</paragraph_{i}>" for i, step in enumerate(steps))
        prompt = (
            "The following is a math problem and a solution (split into paragraphs, enclosed with tags and indexed "
            f"from 0):\n\n[Math Problem]\n\n{question}\n\n[Solution]\n\n{tagged}\n\n"
            "Your task is to review and critique the solution paragraph by paragraph. Once you identify an error in a "
            "paragraph, return the index of the paragraph where the earliest error occurs. Otherwise, return the index "
            'of -1 (which typically denotes "not found").\n\n'
            "Please put your final answer (i.e., the index) in \\boxed{}."
        )
        critique = yield Ask([_user(prompt)])
        if critique is None:
            return Verdicts([None] * len(steps))
        index = first_error(critique.text, steps)
        if isinstance(index, Malformed):
            return _whole(critique, index, len(steps))
        right = len(steps) if index == -1 else index
        return _whole(critique, [1.0] * right + [0.0] * (len(steps) - right), len(steps))


class GenPRM(CritiqueStyle):
    r"""GenPRM (arXiv:2504.00891) in its mode without code: per step an analysis, then a judgement that is begun for the
    model with `**Judgement**: $\boxed`. With y and n the first tokens in which `\boxed{Yes}` and `\boxed{No}` differ,
    and z the logits where the model writes one of them,

        probabilities="raw"        s = 1 / (1 + exp(z_n - z_y))
        probabilities="sampling"   s = 1 / (1 + exp((z_n - z_y) / T)), and 1 or 0 where that is at least top_p on the
                                   side that was written: the other is cut off

    The published scores are of the second kind, T = 0.6 and top_p = 0.95. The authors' chat has no turn of the
    assistant for the critique: it goes on in the user's, and becomes a turn of its own once it is history. The
    published scorer has the model write Python and executes it; that is left out: generated code is never run.
    """

    sampling: ClassVar = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_tokens": 2048}
    own_options: ClassVar = {"probabilities": "raw", "first_turn": "Question: {question}\n\n{step}"}

    SYSTEM = "You are a math teacher. Your task is to review and critique the paragraphs in solution step by step."
    OUTPUT = "<output>\n**Judgement**: $\\boxed"

    def __init__(self, choices: tuple[int, int], first_turn: str, temperature: float = 1.0, top_p: float = 1.0) -> None:
        """`choices`: y and n. `first_turn`: the first user's message. `temperature`, `top_p`: those of the scores."""
        self.choices = choices
        self.first_turn = first_turn
        self.temperature = temperature
        self.top_p = top_p

    @classmethod
    def for_tokenizer(
        cls, tokenizer: Any, path: str, *, probabilities: str, first_turn: str, temperature: float, top_p: float
    ) -> "GenPRM":
        """`ValueError` if the tokenizer writes Yes and No alike, or an option is wrong."""
        yes, no = (tokenizer.encode(f"$\\boxed{{{word}}}$", add_special_tokens=False) for word in ("Yes", "No"))
        differing = [(y, n) for y, n in zip(yes, no, strict=False) if y != n]
        if not differing or tokenizer.unk_token_id in differing[0]:
            raise ValueError(f"the tokenizer of {path} cannot tell \\boxed{{Yes}} from \\boxed{{No}}")
        if not all(first_turn.count(field) == 1 for field in ("{question}", "{step}")):
            raise ValueError(f"first_turn must hold {{question}} and {{step}} once each, got {first_turn!r}")
        if probabilities == "raw":
            return cls(differing[0], first_turn)
        if temperature == 0:
            raise ValueError("probabilities 'sampling' needs a temperature above 0: greedy critics have none")
        return cls(differing[0], first_turn, temperature, top_p)

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """Two generations per step."""
        verdicts = Verdicts([])
        messages = [{"role": "system", "content": self.SYSTEM}]
        for number, step in enumerate(steps, start=1):
            messages.append(_user(self._first(question, step) if number == 1 else step))
            answer = f"<analyze>\nLet's analyze the Paragraph {number} step by step: "
            analysis = yield Ask(list(messages), answer, in_turn=True, stop=("</analyze>\n",))
            if analysis is None:
                break
            # An analysis that ran out of tokens is closed for the model, as published.
            answer += analysis.text.removesuffix("</analyze>\n") + f"</analyze>\n{self.OUTPUT}"
            output = yield Ask(
                list(messages), answer, in_turn=True, stop=("</output>\n",), max_tokens=20, choices=self.choices
            )
            if output is None:
                break
            score = self._score(output)
            if isinstance(score, Malformed):
                verdicts.malformed.append(f"step {number}: {score.reason}")
                score = math.nan
            verdicts.correct.append(score)
            answer += output.text
            verdicts.critiques.append(answer)
            messages.append({"role": "assistant", "content": answer})
        verdicts.correct += [None] * (len(steps) - len(verdicts.correct))
        return verdicts

    def _first(self, question: str, step: str) -> str:
        # One pass, so that a question that holds "{step}" stays as it is.
        texts = {"{question}": question, "{step}": step}
        return re.sub(r"\{question\}|\{step\}", lambda match: texts[match[0]], self.first_turn)

    def _score(self, output: Critique) -> float | Malformed:
        said = judgement("\\boxed" + output.text)
        if isinstance(said, Malformed):
            return said
        at = [index for index, token in enumerate(output.token_ids) if token in self.choices]
        if not at:
            return Malformed("a judgement in other tokens")
        yes, no = output.log_probs[at[0]]
        if not (math.isfinite(yes) or math.isfinite(no)):
            return Malformed("no probability of either judgement")
        score = sigmoid((yes - no) / self.temperature)
        if self.top_p < 1 and (score if said else 1 - score) >= self.top_p:
            return float(said)
        return score


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


CRITIQUE_STYLES: dict[str, type[CritiqueStyle]] = {
    "genprm": GenPRM,
    "processbench": ProcessBenchCritic,
    "thinkprm": ThinkPRM,
}
"""Name of a critique style -> class."""
