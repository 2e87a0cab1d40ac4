"""Causal LMs with reward tokens read at a placeholder token, as OpenRLHF's PRM trainer makes them.

Tokens, all encoded without special tokens (no BOS):

    encode(question) + sum over steps of ( encode(step + step_separator) + [placeholder] )

Score of a step, with z the language-model logits at its placeholder and the positive token listed first:

    s = exp(z_first) / sum over reward tokens of exp(z)

Source: OpenRLHF (arXiv:2405.11143), `train_prm`; with the tag `ки` and the tokens `+`, `-` it is Math-Shepherd's form
(arXiv:2312.08935) without BOS. Pieces are joined as ids, so a separator never merges with the step before it.

The checkpoint says how it was trained by the key "prm" of its config.json, next to its ordinary `architectures`:

    "prm": {"family": "placeholder", "placeholder_token": "<s>", "reward_tokens": ["+", "-"],
            "step_separator": "\\n", "chat_template": false}
"""

import math
from collections.abc import Sequence
from typing import Any

from vllm_prm.families.base import (
    PRMFamily,
    Question,
    Rendered,
    load_tokenizer,
    read_config,
    single_token_id,
    step_reward_architecture,
)

OPTIONS = {"family", "placeholder_token", "reward_tokens", "step_separator", "chat_template"}


class PlaceholderFamily(PRMFamily):
    """Reward tokens at a placeholder token; see the module's formula."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        placeholder_token: str,
        reward_tokens: Sequence[str],
        step_separator: str = "",
        chat_template: bool = False,
        architecture: str | None = None,
        path: str = "the checkpoint",
    ) -> None:
        """`reward_tokens`: at least two different tokens, the positive one first. `ValueError` otherwise."""
        self.tokenizer = tokenizer
        self.placeholder_id = single_token_id(tokenizer, placeholder_token, path)
        self.reward_token_ids = tuple(single_token_id(tokenizer, token, path) for token in reward_tokens)
        if len(set(self.reward_token_ids)) < 2 or len(set(self.reward_token_ids)) != len(self.reward_token_ids):
            raise ValueError(
                f"prm.reward_tokens of {path} must be at least two different tokens, positive first; "
                f"got {list(reward_tokens)} with ids {list(self.reward_token_ids)}"
            )
        if chat_template and not tokenizer.chat_template:
            raise ValueError(f"prm.chat_template is true but the tokenizer of {path} has no chat template")
        self.placeholder_token = placeholder_token
        self.reward_tokens = tuple(reward_tokens)
        self.step_separator = step_separator
        self.chat_template = chat_template
        self.architecture = architecture
        self.path = path

    @classmethod
    def from_checkpoint(cls, path: str, tokenizer: Any = None) -> "PlaceholderFamily":
        """Read the `prm` key of config.json. `ValueError` for a missing or unknown option, token or architecture."""
        config = read_config(path)
        declared = config.get("prm")
        if not isinstance(declared, dict):
            raise ValueError(
                f'config.json of {path} has no object "prm"; this family needs '
                '{"family": "placeholder", "placeholder_token": ..., "reward_tokens": [...]}'
            )
        unknown = set(declared) - OPTIONS
        missing = {"placeholder_token", "reward_tokens"} - set(declared)
        if unknown or missing:
            raise ValueError(
                f"config.json of {path}: prm has unknown keys {sorted(unknown)} and lacks {sorted(missing)}; "
                f"allowed: {sorted(OPTIONS)}"
            )
        return cls(
            load_tokenizer(path) if tokenizer is None else tokenizer,
            architecture=step_reward_architecture(path, config.get("architectures")),
            path=path,
            **{key: value for key, value in declared.items() if key != "family"},
        )

    def _question_text(self, question: Question) -> str:
        if isinstance(question, str) and not self.chat_template:
            return question
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else list(question)
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"messages were given but the tokenizer of {self.path} has no chat template; give question"
            )
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def render(self, question: Question, steps: Sequence[str]) -> Rendered:
        """Tokens and placeholder positions, see the module's formula. No step: no position. A step of no characters
        still gets its placeholder, so positions and steps always pair up."""
        if isinstance(steps, str):
            raise ValueError("steps must be a list of texts, got one text; split it into steps first")
        token_ids = self._encode(self._question_text(question))
        step_positions = []
        for step in steps:
            token_ids += self._encode(step + self.step_separator)
            step_positions.append(len(token_ids))
            token_ids.append(self.placeholder_id)
        return Rendered(token_ids, step_positions)

    def decode(self, raw: Sequence[Sequence[float]]) -> list[float]:
        """Softmax over each row of reward-token logits, first entry: (S, R) -> S. NaN stays NaN for the caller."""
        scores = []
        for logits in raw:
            if len(logits) != len(self.reward_token_ids):
                raise ValueError(f"expected {len(self.reward_token_ids)} logits per step, got {len(logits)}")
            if not all(math.isfinite(value) for value in logits):
                scores.append(math.nan)
                continue
            top = max(logits)
            weights = [math.exp(value - top) for value in logits]
            scores.append(weights[0] / math.fsum(weights))
        return scores

    def hf_overrides(self) -> dict[str, Any]:
        """The step-reward architecture, and the reward-token ids as the pooler's default."""
        if self.architecture is None:
            raise ValueError("this family was built without a checkpoint, so there is no architecture to serve")
        return {
            "architectures": [self.architecture],
            "prm": {
                "family": "placeholder",
                "placeholder_token": self.placeholder_token,
                "reward_tokens": list(self.reward_tokens),
                "step_separator": self.step_separator,
                "chat_template": self.chat_template,
                "reward_token_ids": list(self.reward_token_ids),
            },
        }
