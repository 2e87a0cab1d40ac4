r"""GenPRM (arXiv:2504.00891) in its mode without code: per step an analysis, then a judgement that is begun for the
model with `**Judgement**: $\boxed`. With y and n the first tokens in which `\boxed{Yes}` and `\boxed{No}` differ, and
z the logits where the model writes one of them,

    probabilities="raw"        s = 1 / (1 + exp(z_n - z_y))
    probabilities="sampling"   s = 1 / (1 + exp((z_n - z_y) / T)), and 1 or 0 where that is at least top_p on the
                               side that was written: the other is cut off

The published scores are of the second kind, T = 0.6 and top_p = 0.95. The authors' chat has no turn of the assistant
for the critique: it goes on in the user's, and becomes a turn of its own once it is history. The published scorer has
the model write Python and executes it; that is left out: generated code is never run.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vllm_prm.families.critics.critic import Ask, Conversation, Critique, CritiqueStyle, Verdicts, chance, opposed, user
from vllm_prm.families.critics.verdicts import Malformed, judgement
from vllm_prm.families.writing import filled, require_fields

END = ("</analyze>\n",)


class GenPRM(CritiqueStyle):
    """Yes or No for each step, with its probability; see the module."""

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
        cls, tokenizer: Any, path: str, sampling: Mapping[str, Any], *, probabilities: str, first_turn: str
    ) -> "GenPRM":
        """`ValueError` if the tokenizer writes Yes and No alike, or an option is wrong."""
        _, choices = opposed(tokenizer, path, "$\\boxed{Yes}$", "$\\boxed{No}$")
        require_fields("first_turn", first_turn, ("question", "step"))
        if probabilities == "raw":
            return cls(choices, first_turn)
        if sampling["temperature"] == 0:
            raise ValueError("probabilities 'sampling' needs a temperature above 0: greedy critics have none")
        return cls(choices, first_turn, sampling["temperature"], sampling["top_p"])

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """Two generations per step."""
        verdicts = Verdicts([])
        messages = [{"role": "system", "content": self.SYSTEM}]
        for number, step in enumerate(steps, start=1):
            messages.append(user(filled(self.first_turn, question=question, step=step) if number == 1 else step))
            answer = f"<analyze>\nLet's analyze the Paragraph {number} step by step: "
            analysis = yield Ask(list(messages), answer, in_turn=True, stop=END)
            if analysis is None:
                break
            # An analysis that ran out of tokens is closed for the model, as published.
            answer += analysis.text.removesuffix(END[0]) + f"{END[0]}{self.OUTPUT}"
            output = yield Ask(
                list(messages), answer, in_turn=True, stop=("</output>\n",), max_tokens=20, choices=self.choices
            )
            if output is None:
                break
            verdicts.judge(number, self._score(output))
            answer += output.text
            verdicts.critiques.append(answer)
            verdicts.empty += not analysis.before(END).strip()
            verdicts.cut_off += not analysis.finished
            messages.append({"role": "assistant", "content": answer})
        return verdicts.filled(len(steps))

    def _score(self, output: Critique) -> float | Malformed:
        said = judgement("\\boxed" + output.text)
        if isinstance(said, Malformed):
            return said
        at = [index for index, token in enumerate(output.token_ids) if token in self.choices]
        if not at:
            return Malformed("a judgement in other tokens")
        score = chance(output.log_probs[at[0]], self.temperature)
        if self.top_p < 1 and isinstance(score, float) and (score if said else 1 - score) >= self.top_p:
            return float(said)
        return score
