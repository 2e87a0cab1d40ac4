r"""The critic of ProcessBench (arXiv:2412.06559): any chat model is asked for the index of the first wrong paragraph in
`\boxed{}`, -1 for none. A sample's step score is 1 before that paragraph, and 0 from it on: nobody vouches for what
follows an error.

Sampling as in the authors' `run_eval.py`, by the model's name.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from vllm_prm.families.critics.critic import Ask, Conversation, CritiqueStyle, Verdicts, one_critique, user
from vllm_prm.families.critics.verdicts import Malformed, first_error


class ProcessBenchCritic(CritiqueStyle):
    """The index of the first error; see the module."""

    sampling: ClassVar = {"temperature": 1.0, "top_p": 0.9, "max_tokens": 8192}

    @classmethod
    def published_sampling(cls, path: str, samples: int) -> dict[str, Any]:
        """One critique is greedy. Qwen2.5-Math is sampled more narrowly, and QwQ may write 32768 tokens."""
        chosen = dict(cls.sampling)
        if "QwQ" in path:
            chosen["max_tokens"] = 32768
        if samples == 1:
            return {**chosen, "temperature": 0.0, "top_p": 1.0}
        if "Qwen2.5-Math" in path:
            chosen |= {"temperature": 0.7, "top_p": 0.8, "top_k": 20}
        return chosen

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
        critique = yield Ask([user(prompt)])
        if critique is None:
            return Verdicts([None] * len(steps))
        correct: Sequence[float] | Malformed
        index = first_error(critique.text, steps)
        if isinstance(index, Malformed):
            correct = index
        else:
            right = len(steps) if index == -1 else index
            correct = [1.0] * right + [0.0] * (len(steps) - right)
        return one_critique(critique, critique.text, correct, len(steps))
