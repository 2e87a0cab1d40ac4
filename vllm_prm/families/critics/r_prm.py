r"""R-PRM (arXiv:2503.21295): an analysis of each step in a chat of its own, then the question whether it is correct.

    s_k = exp(z_yes) / (exp(z_yes) + exp(z_no)),   z the logits of " Yes" and " No" after
                                                   "Is the step correct (Yes/No)?" at the end of the analysis

The earlier steps stand above the one that is judged, all numbered. As in the authors' guided search an analysis that
never comes to the question gives no score. They sample ten analyses of a step.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from vllm_prm.families.critics.critic import Ask, Conversation, CritiqueStyle, Verdicts, chance, opposed, user
from vllm_prm.families.critics.verdicts import Malformed

QUESTION = "Is the step correct (Yes/No)?"
SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
_NUMBER = re.compile(r"^\s*Step \d+:")
_INSTRUCTION = """\
You are an excellent math teacher. Please verify the correctness of the Now Step.

You first need to analyze the Now Step and the Previous Steps and then summarize based on your analysis.
Analysis:
You need to analyze the following aspects.
**Previous Steps Analysis**: You need to analyze the Previous Steps step by step. For each step, you need to first \
explain what the current step is doing, then you try to find any error in the current step.
**Now Step Analysis**: You first need to explain what the Now Step is doing, and then point out which part of the \
Question it is trying to solve or which part of the information it states.
**Data Source Analysis**: First you need to find out what data are used in the Now Step, and then you need to \
determine whether the source of the data is reasonable and correct. When you judge whether the source of a data is \
reasonable and correct, you need to specify the specific source of this data: such as which part of the question, or \
which content of the previous step; and then determine the source and current use is consistent, the Now Step is used \
correctly.
**Consistency Analysis**: You need to check that the Now Step is consistent with the contents of the Previous Steps, \
and then you need to check that all the information inside the Now Step is consistent.
**Calculation Analysis**: If the Now Step involves any calculations, such as addition, subtraction, multiplication, \
division, equations, modulo operations, etc., you will first need to perform a check on the calculation, such as a \
reverse operation, to see if the calculation was done correctly, and then analyze the results of your check to see if \
there was an error in the calculation.
Conclusion: \n\
Please verify the correctness of the Now Step based on your analysis, if there is any error in the Now Step then the \
Now Step is wrong and vice versa the Now Step is correct. At the end of the Conclusion, when you give your final \
answer, write it in the form "Verification: Is the step correct (Yes/No)? X", where X is either Yes or No.

"""


class RPRM(CritiqueStyle):
    """P(Yes) of each step; see the module."""

    sampling: ClassVar = {"temperature": 0.95, "top_p": 0.95, "max_tokens": 4096}

    def __init__(self, shared: str, choices: tuple[int, int]) -> None:
        """`choices`: Yes and No, where they begin to differ; `shared`: the text before that."""
        self.shared, self.choices = shared, choices

    @classmethod
    def for_tokenizer(cls, tokenizer: Any, path: str, sampling: Mapping[str, Any]) -> "RPRM":
        """`ValueError` if the tokenizer writes Yes and No alike."""
        return cls(*opposed(tokenizer, path, " Yes", " No"))

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """An analysis and a decision for each step."""
        verdicts = Verdicts([])
        for count in range(1, len(steps) + 1):
            messages = [SYSTEM, user(_prompt(question, steps[:count]))]
            analysis = yield Ask(messages, stop=(QUESTION,))
            if analysis is None:
                break
            text = analysis.before((QUESTION,))
            verdicts.count(analysis, text)
            if text == analysis.text:
                if not analysis.finished or not text.strip():
                    verdicts.correct.append(float("nan"))
                else:
                    verdicts.judge(count, Malformed("an analysis without the question at its end"))
                continue
            answer = yield Ask(messages, text + QUESTION + self.shared, max_tokens=1, choices=self.choices)
            if answer is None:
                break
            verdicts.judge(count, chance(answer.log_probs[0]))
        return verdicts.filled(len(steps))


def _prompt(question: str, steps: Sequence[str]) -> str:
    numbered = [f"Step {n}: {_NUMBER.sub('', step).strip()}" for n, step in enumerate(steps, start=1)]
    previous = "\n".join(numbered[:-1]) or "Since the Now Step is the first step, there are no Previous Steps."
    return (
        f"{_INSTRUCTION}Question: {question}\nPrevious Steps: {previous}\nNow Step: {numbered[-1]}\n"
        "Please carefully analyze the correctness of the Now Step.\nReply: "
    )
