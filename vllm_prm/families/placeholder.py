"""Causal LMs with reward tokens read at a placeholder token, as OpenRLHF's PRM trainer makes them.

Tokens as in `marked_steps`, the mark being

    encode(step_separator) + [placeholder]

Score of a step, with z the language-model logits at its placeholder and the positive token listed first:

    s = exp(z_first) / sum over reward tokens of exp(z)

Source: OpenRLHF (arXiv:2405.11143), `train_prm`; with the tag `ки` and the tokens `+`, `-` it is Math-Shepherd's form
(arXiv:2312.08935) without BOS. Pieces are joined as ids, so a separator never merges with the step before it.

OpenRLHF up to 0.9.5 encodes the column it trains on at once (`together`); what stands between a placeholder and the
next step is `step_joint`:

    "prm": {"family": "placeholder", "placeholder_token": "ки", "reward_tokens": ["+", "-"], "together": true,
            "question_suffix": " ", "step_separator": " ", "step_joint": "\\n"}    # trained on Math-Shepherd's data

The checkpoint says how it was trained by the key "prm" of its config.json, next to its ordinary `architectures`:

    "prm": {"family": "placeholder", "placeholder_token": "<s>", "reward_tokens": ["+", "-"],
            "step_separator": "\\n", "chat_template": false}

VersaPRM (arXiv:2502.06737) is the same with an ordinary token as placeholder, ` \\n\\n\\n\\n`, and BOS; its authors
strip each step. Med-PRM (arXiv:2506.11474) has the solution in the user's message, each step on one line, ended by the
token ` ки`; its scoring script encodes what the chat template wrote, BOS included, with a BOS of its own. With
documents ("Document 1: ...", before "Question: ...") it has another system message: give `user_turn` and `system`.
"""

from dataclasses import dataclass
from typing import Any

from vllm_prm.architectures import GENERATES
from vllm_prm.families.checkpoint_family import bos_ids
from vllm_prm.families.decoding import Rows, class_probabilities
from vllm_prm.families.evidence import Checkpoint, Evidence
from vllm_prm.families.marked_steps import MarkedStepsFamily, MarkedStepsOptions
from vllm_prm.families.prm_family import single_token_id

VERSA_PRM = {
    "placeholder_token": " \n\n\n\n",
    "reward_tokens": ["+", "-"],
    "question_suffix": " \n\n",
    "bos": True,
    "strip": True,
}

MED_PRM = {
    "placeholder_token": " ки",
    "reward_tokens": [" +", " -"],
    "system": (
        "You are an evaluator assessing the logicality and validity of the reasoning in each step of the given "
        "explanation. In order to support the evaluation, the question and the explanation are provided. If the "
        "reasoning contains errors, output - after that step. If the reasoning in a step is logical and valid, output "
        "+ after that step."
    ),
    "user_turn": "Question: {question}\n\nExplanation: ",
    "step_joint": " ",
    "together": True,
    "strip": True,
    "one_line": True,
    "bos": True,
}


@dataclass(frozen=True, kw_only=True)
class PlaceholderOptions(MarkedStepsOptions):
    """`reward_tokens`: at least two different tokens, the positive one first. The others stand in the formulas."""

    placeholder_token: str
    reward_tokens: tuple[str, ...]
    step_separator: str = ""
    bos: bool = False


class PlaceholderFamily(MarkedStepsFamily):
    """Reward tokens at a placeholder token; see the module's formula."""

    name = "placeholder"
    Options = PlaceholderOptions
    published = {
        "Llama-PRM800K": VERSA_PRM,
        "Qwen-PRM800K": {**VERSA_PRM, "bos": False},
        "llama-3.1-medprm-reward-v1.0": MED_PRM,
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
        self.mark_id, self.mark_ids = self.placeholder_id, [self.placeholder_id]
        self.bos = bos_ids(tokenizer, options.bos, path)

    @property
    def before_mark(self) -> str:
        """What stands between a step and its placeholder."""
        return self.options.step_separator

    @property
    def mark_text(self) -> str:
        """The placeholder."""
        return self.options.placeholder_token

    @classmethod
    def evidence(cls, checkpoint: Checkpoint) -> Evidence | None:
        if by_name := super().evidence(checkpoint):
            return by_name
        if any(name.endswith(GENERATES) for name in checkpoint.architectures):
            return Evidence("any causal LM may be one; needs the options placeholder_token and reward_tokens")
        return None

    def decode(self, raw: Rows) -> list[float]:
        """Softmax over each row of reward-token logits, first entry: (S, R) -> S."""
        return [probabilities[0] for probabilities in class_probabilities(raw, len(self.reward_token_ids))]
