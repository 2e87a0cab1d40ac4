r"""The verifier of DeepSeekMath-V2 (arXiv:2511.22570): it grades a whole proof with 0, 0.5 or 1 in `\boxed{}`.

One grade for the whole solution, which every step is given: the verifier says nothing of single steps, and a proof that
ends after some of them would be graded as unfinished. The grade is read after the model's thoughts (`</think>`).
"""

from collections.abc import Sequence
from typing import ClassVar

from vllm_prm.families.critics.critic import Ask, Conversation, CritiqueStyle, Verdicts, one_critique, user
from vllm_prm.families.critics.verdicts import Malformed, boxed

GRADES = {"0": 0.0, "0.0": 0.0, "0.5": 0.5, "1": 1.0, "1.0": 1.0}
_INSTRUCTION = r"""## Instruction

Your task is to evaluate the quality of a solution to a problem. The problem may ask for a proof of statement, or ask \
for an answer. If finding an answer is required, the solution should present the answer, and it should also be a \
rigorous proof of that answer being valid.

Please evaluate the solution and score it according to the following criteria:
- If the solution is completely correct, with all steps executed properly and clearly demonstrated, then the score is 1
- If the solution is generally correct, but with some details omitted or minor errors, then the score is 0.5
- If the solution does not actually address the required problem, contains fatal errors, or has severe omissions, then \
the score is 0
- Additionally, referencing anything from any paper does not save the need to prove the reference. It's okay IF AND \
ONLY IF the solution also presents a valid proof of the reference argument(s); otherwise, if the solution omits the \
proof or if the proof provided is not completely correct, the solution should be scored according to the criteria \
above, and definitely not with a score of 1

Please carefully reason out and analyze the quality of the solution below, and in your final response present a \
detailed evaluation of the solution's quality followed by your score. Therefore, your response should be in the \
following format:

Here is my evaluation of the solution:
... // Your evaluation here. You are required to present in detail the key steps of the solution or the steps for \
which you had doubts regarding their correctness, and explicitly analyze whether each step is accurate: for correct \
steps, explain why you initially doubted their correctness and why they are indeed correct; for erroneous steps, \
explain the reason for the error and the impact of that error on the solution.

Based on my evaluation, the final overal score should be:
\boxed{...} // where ... should be the final overall score (0, 0.5, or 1, and nothing else) based on the above criteria

---

Here is your task input:

""".replace("\\\n", "")


class ProofGrader(CritiqueStyle):
    """One grade of a whole solution; see the module."""

    sampling: ClassVar = {"temperature": 1.0, "top_p": 0.95, "max_tokens": 65536}

    def judge(self, question: str, steps: Sequence[str]) -> Conversation:
        """One critique."""
        proof = "\n\n".join(steps).strip()
        critique = yield Ask([user(f"{_INSTRUCTION}## Problem\n{question.strip()}\n\n## Solution\n{proof}")])
        if critique is None:
            return Verdicts([None] * len(steps))
        graded = grade(critique.text.rpartition("</think>")[2], steps)
        correct = graded if isinstance(graded, Malformed) else [graded] * len(steps)
        return one_critique(critique, critique.text, correct, len(steps))


def grade(evaluation: str, steps: Sequence[str]) -> float | Malformed:
    r"""The grade in the last `\boxed{}`."""
    contents = boxed(evaluation, steps)
    if not contents:
        return Malformed("no grade")
    last = contents[-1][1]
    return GRADES.get(last, Malformed("the last box holds no grade"))
