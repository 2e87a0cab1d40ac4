"""RLHFlow's Llama-3.1 PRMs: a chat turn per step, answered by `+` or `-`.

The tokenizer's chat template over

    user: first_turn of question and step_1    assistant: good    user: step_2    assistant: good    ...

    s = exp(z_good) / (exp(z_good) + exp(z_bad)),   z the logits where the assistant would answer

that is, at the last token of the assistant's header, before its answer (of several tokens the first counts).
The authors' script (RLHFlow/RLHF-Reward-Modeling, `math-rm`) runs one forward pass per step; every earlier answer is
`+` whatever its score was, so one pass over the whole conversation gives the same numbers. It strips each step, and
joins question and first step by a space.

FoVer (arXiv:2505.15960) is the same with the answers `correct` and `incorrect`, a first turn of its own, and steps as
they are (`src/prm` of its repository).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.checkpoint_family import CheckpointFamily, as_messages, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Question, Rendered
from vllm_prm.families.writing import chat_turns, filled, require_fields

FOVER = {
    "answers": ("correct", "incorrect"),
    "strip": False,
    # The authors' spelling, which the model was trained with.
    "first_turn": (
        "** Problem **\n{question}\n\n** Task **\nYour task is to evaluate the accuracy of each step in the provided "
        'solution to the above question. For each step, respond with "correct" if the reasoning is logically valid and '
        "mathematically sound, or if the step is a general statement or transition that does not contain reasoning. "
        'Respond with "incorrect" if the step includes any errors or flawed logic.\n\n** Sotluion **\n{step}'
    ),
}


@dataclass(frozen=True, kw_only=True)
class RLHFlowOptions:
    """`answers`: good and bad. `first_turn`: the user's first message, of `{question}` and `{step}`. `strip`: white
    space around a step is dropped."""

    answers: tuple[str, str] = ("+", "-")
    first_turn: str = "{question} {step}"
    strip: bool = True

    def __post_init__(self) -> None:
        require_fields("first_turn", self.first_turn, ("question", "step"))


class RLHFlowFamily(CheckpointFamily):
    """One answer against another as the assistant's to each step; see the module's formula."""

    name = "rlhflow"
    Options = RLHFlowOptions
    published = {
        "Llama3.1-8B-PRM-Deepseek-Data": {},
        "Llama3.1-8B-PRM-Mistral-Data": {},
        "Llama-3.1-8B-FoVer-PRM": FOVER,
        "Qwen-2.5-7B-FoVer-PRM": FOVER,
    }

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """`ValueError` without a chat template, or for answers that do not begin with different known tokens."""
        super().__init__(tokenizer, **arguments)
        encoded = [tokenizer.encode(answer, add_special_tokens=False)[:1] for answer in self.options.answers]
        first = [token for tokens in encoded for token in tokens]
        if len(set(first)) != 2 or tokenizer.unk_token_id in first:
            raise ValueError(
                f"the tokenizer of {self.path} begins the answers {list(self.options.answers)} with the tokens "
                f"{first}, not with two different known ones"
            )
        self.reward_token_ids = tuple(first)
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
        if self.options.strip:
            steps = [step.strip() for step in steps]
        *earlier, asked = as_messages(question)
        if asked["role"] != "user":
            raise ValueError(
                f"family {self.name} adds the first step to the user's message, the last one given is "
                f"from {asked['role']!r}"
            )
        first = asked["content"]
        if steps:
            first = filled(self.options.first_turn, question=asked["content"], step=steps[0])
        messages = [*earlier, {"role": "user", "content": first}]
        for step in steps[1:]:
            messages += [{"role": "assistant", "content": self.options.answers[0]}, {"role": "user", "content": step}]
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
