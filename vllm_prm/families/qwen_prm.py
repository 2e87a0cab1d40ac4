"""Qwen2.5-Math-PRM (`Qwen2ForProcessRewardModel`, arXiv:2501.07301): two classes at the token `<extra_0>`.

The tokenizer's chat template, with the solution as the assistant's message:

    system: "Please reason step by step, and put your final answer within \\boxed{}."
    user: question        assistant: step_1 <extra_0> step_2 <extra_0> ... step_S <extra_0>

Score of a step, at its `<extra_0>`:  s = softmax( W_2 relu(W_0 h + b_0) + b_2 )_1

ReasonFlux-PRM-7B (arXiv:2506.18896) is the same without a system message of its own (`"system": null`), which leaves
that to the template.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, as_messages, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Head, Question, Rendered, single_token_id
from vllm_prm.families.writing import chat_turns

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
REASON_FLUX = {"system": None}


@dataclass(frozen=True, kw_only=True)
class QwenPRMOptions:
    """`system`: the system message where the question brings none; None leaves it to the template."""

    system: str | None = SYSTEM
    step_token: str = "<extra_0>"


class QwenPRMFamily(CheckpointFamily):
    """Two classes at `<extra_0>`; see the module's formula."""

    name = "qwen_prm"
    Options = QwenPRMOptions
    published = {
        "Qwen2.5-Math-PRM-7B": {},
        "Qwen2.5-Math-PRM-72B": {},
        "Qwen2.5-Math-7B-PRM800K": {},
        "ReasonFlux-PRM-7B": REASON_FLUX,
    }
    response_splitter = "\n\n"
    head = Head(("score.0", "score.2"), outputs=2, bias=True)

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` without a chat template, or if the step token is no single token: a Qwen tokenizer other than
        the PRM's own cuts it to pieces."""
        super().__init__(tokenizer, **arguments)
        self.step_id = single_token_id(tokenizer, self.options.step_token, self.path)
        chat_turns(tokenizer, ["user", "assistant"], self.path)

    def tags(self) -> Sequence[str]:
        return (self.options.step_token,)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if any(name.endswith("ForProcessRewardModel") for name in checkpoint.architectures):
            return Evidence(f"architectures is {checkpoint.architectures}", decisive=True)
        if process_reward_model(checkpoint):
            return Evidence("its weights have a head of two layers, score.0 and score.2", decisive=True)
        return None

    @classmethod
    def is_anothers(cls, checkpoint: Checkpoint) -> bool:
        """PURE has published a checkpoint under the name of Qwen's PRM800K."""
        classifies = any(name.endswith("ForTokenClassification") for name in checkpoint.architectures)
        return classifies and not process_reward_model(checkpoint)

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and the positions of the step tokens, up to the last of them. No step: the template up to where the
        assistant's message begins."""
        require_list(steps)
        messages = as_messages(question)
        if self.options.system is not None and not any(message["role"] == "system" for message in messages):
            messages = [{"role": "system", "content": self.options.system}, *messages]
        roles = [message["role"] for message in messages]
        (*turns, answer), _ = chat_turns(self.tokenizer, [*roles, "assistant"], self.path)
        writer = self.writer()
        for turn, message in zip(turns, messages, strict=True):
            writer.turn(turn, message["content"])
        writer.recipe(answer.before)
        for index, step in enumerate(steps):
            writer.content(step.lstrip(answer.left) if index == 0 else step)
            writer.recipe(self.options.step_token)
            writer.mark(self.step_id)
        return writer.rendered()

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over the two classes, the second: (S, 2) -> S."""
        return [good for _, good in class_probabilities(raw, 2)]


def process_reward_model(checkpoint: Checkpoint) -> bool:
    """Whether architecture or weights are those of a Qwen2.5-Math-PRM: a head of two layers and two classes."""
    declared = any(name.endswith("ForProcessRewardModel") for name in checkpoint.architectures)
    two_layers = {"score.0.weight", "score.2.weight"} <= set(checkpoint.weights)
    return declared or (two_layers and checkpoint.rows("score.2.weight") in (2, None))
