"""RLHFlow's Llama-3.1 PRMs: a chat turn per step, answered by `+` or `-`.

The tokenizer's chat template over

    user: question + " " + step_1    assistant: "+"    user: step_2    assistant: "+"    ...

    s = exp(z_+) / (exp(z_+) + exp(z_-)),   z the logits where the assistant would answer

that is, at the last token of the assistant's header, before its `+`. The authors' script (RLHFlow/RLHF-Reward-Modeling,
`math-rm`) runs one forward pass per step; every earlier answer is `+` whatever its score was, so one pass over the
whole conversation gives the same numbers. It strips each step.
"""

from collections.abc import Sequence
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, as_messages, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Question, Rendered, single_token_id
from vllm_prm.families.writing import chat_turns

GOOD, BAD = "+", "-"


class RLHFlowFamily(CheckpointFamily):
    """`+` against `-` as the assistant's answer to each step; see the module's formula."""

    name = "rlhflow"
    published = {"Llama3.1-8B-PRM-Deepseek-Data": {}, "Llama3.1-8B-PRM-Mistral-Data": {}}

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` without a chat template or the tokens `+` and `-`."""
        super().__init__(tokenizer, **arguments)
        self.reward_token_ids = tuple(single_token_id(tokenizer, token, self.path) for token in (GOOD, BAD))
        chat_turns(tokenizer, ["user", "assistant"], self.path)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if "LlamaForCausalLM" in checkpoint.architectures and (
            "<|start_header_id|>" in checkpoint.tokenizer.get_vocab() and checkpoint.tokenizer.chat_template
        ):
            return Evidence("a Llama causal LM with Llama 3's chat turns, as every Llama-3 chat model has")
        return None

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and the positions before the answers, up to the last of them. Messages must end with the user's, to
        which the first step is added. No step: the conversation so far."""
        require_list(steps)
        steps = [step.strip() for step in steps]
        *earlier, asked = as_messages(question)
        if asked["role"] != "user":
            raise ValueError(
                f"family {self.name} adds the first step to the user's message, the last one given is "
                f"from {asked['role']!r}"
            )
        first = f"{asked['content']} {steps[0]}" if steps else asked["content"]
        messages = [*earlier, {"role": "user", "content": first}]
        for step in steps[1:]:
            messages += [{"role": "assistant", "content": GOOD}, {"role": "user", "content": step}]
        roles = [message["role"] for message in messages]
        turns, _ = chat_turns(self.tokenizer, [*roles, "assistant"] if steps else roles, self.path)
        writer = self.writer()
        for index, (turn, message) in enumerate(zip(turns, messages, strict=False)):
            writer.recipe(turn.before)
            if index > len(earlier) and message["role"] == "assistant":
                writer.mark()
            writer.content(turn.stripped(message["content"]))
        if steps:
            writer.recipe(turns[-1].before)
            writer.mark()
        return writer.rendered()

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over the two answers, the first: (S, 2) -> S."""
        return [good for good, _ in class_probabilities(raw, 2)]
