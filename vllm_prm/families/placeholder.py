"""Causal LMs with reward tokens read at a placeholder token, as OpenRLHF's PRM trainer makes them.

Tokens, encoded without special tokens unless `bos` asks for it:

    [BOS] + encode(question + question_suffix) + sum over steps of ( encode(step + step_separator) + [placeholder] )

Score of a step, with z the language-model logits at its placeholder and the positive token listed first:

    s = exp(z_first) / sum over reward tokens of exp(z)

Source: OpenRLHF (arXiv:2405.11143), `train_prm`; with the tag `ки` and the tokens `+`, `-` it is Math-Shepherd's form
(arXiv:2312.08935) without BOS. Pieces are joined as ids, so a separator never merges with the step before it; a suffix
of the question belongs to the text that it goes over into, and is encoded with the first step.

With `together` the placeholder is text like the rest, and all of it is encoded at once, as OpenRLHF up to 0.9.5 does
with the column it trains on. What stands between a placeholder and the next step is `step_joint`:

    [BOS] + encode(question + question_suffix + step_1 + step_separator + placeholder + step_joint + step_2 + ...)

    "prm": {"family": "placeholder", "placeholder_token": "ки", "reward_tokens": ["+", "-"], "together": true,
            "question_suffix": " ", "step_separator": " ", "step_joint": "\\n"}    # trained on Math-Shepherd's data

The checkpoint says how it was trained by the key "prm" of its config.json, next to its ordinary `architectures`:

    "prm": {"family": "placeholder", "placeholder_token": "<s>", "reward_tokens": ["+", "-"],
            "step_separator": "\\n", "chat_template": false}

VersaPRM (arXiv:2502.06737) is the same with an ordinary token as placeholder, ` \\n\\n\\n\\n`, and BOS; its authors
strip each step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.architectures import GENERATES
from vllm_prm.families.checkpoint_family import CheckpointFamily, bos_ids, require_list
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.prm_family import Question, Rendered, single_token_id

VERSA_PRM = {
    "placeholder_token": " \n\n\n\n",
    "reward_tokens": ["+", "-"],
    "question_suffix": " \n\n",
    "bos": True,
    "strip": True,
}


@dataclass(frozen=True, kw_only=True)
class PlaceholderOptions:
    """`reward_tokens`: at least two different tokens, the positive one first. `chat_template`: the question goes
    through the tokenizer's template. `strip`: white space around a step is dropped. The others stand in the module's
    formulas."""

    placeholder_token: str
    reward_tokens: tuple[str, ...]
    step_separator: str = ""
    step_joint: str = ""
    question_suffix: str = ""
    together: bool = False
    strip: bool = False
    chat_template: bool = False
    bos: bool = False


class PlaceholderFamily(CheckpointFamily):
    """Reward tokens at a placeholder token; see the module's formula."""

    name = "placeholder"
    Options = PlaceholderOptions
    published = {
        "Llama-PRM800K": VERSA_PRM,
        "Qwen-PRM800K": {**VERSA_PRM, "bos": False},
        "VersaPRM": VERSA_PRM,
        **{f"VersaPRM-{kind}": VERSA_PRM for kind in ("Aug", "Base-3B", "Base-8B", "Math-Subset", "Small-Subset")},
    }

    def __init__(self, tokenizer: Any, **arguments: Any) -> None:
        """Options as in `PlaceholderOptions`. `ValueError` for tokens the vocabulary lacks, or that are not enough."""
        super().__init__(tokenizer, **arguments)
        options, path = self.options, self.path
        self.placeholder_id = single_token_id(tokenizer, options.placeholder_token, path)
        self.reward_token_ids = tuple(single_token_id(tokenizer, token, path) for token in options.reward_tokens)
        if len(set(self.reward_token_ids)) < 2 or len(set(self.reward_token_ids)) != len(self.reward_token_ids):
            raise ValueError(
                f"prm.reward_tokens of {path} must be at least two different tokens, positive first; "
                f"got {list(options.reward_tokens)} with ids {list(self.reward_token_ids)}"
            )
        if options.chat_template and not tokenizer.chat_template:
            raise ValueError(f"prm.chat_template is true but the tokenizer of {path} has no chat template")
        self.bos = bos_ids(tokenizer, options.bos, path)

    def tags(self) -> Sequence[str]:
        return (self.options.placeholder_token,)

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if any(name.endswith(GENERATES) for name in checkpoint.architectures):
            return Evidence("any causal LM may be one; needs the options placeholder_token and reward_tokens")
        return None

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and placeholder positions, see the module's formula. No step: no position. A step of no characters
        still gets its placeholder, so positions and steps always pair up."""
        require_list(steps)
        options = self.options
        writer = self.begun(question, bos=self.bos, suffix=options.question_suffix, chat=options.chat_template)
        for number, step in enumerate(steps, start=1):
            if not options.together and (number > 1 or not options.question_suffix):
                writer.separate()
            writer.recipe(options.step_joint if number > 1 else "")
            writer.content(step.strip() if options.strip else step)
            writer.recipe(options.step_separator)
            if options.together:
                writer.recipe(options.placeholder_token)
                writer.mark(self.placeholder_id)
            else:
                writer.ids([self.placeholder_id])
                writer.mark()
        return writer.rendered()

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over each row of reward-token logits, first entry: (S, R) -> S."""
        return [probabilities[0] for probabilities in class_probabilities(raw, len(self.reward_token_ids))]
