"""Further attempts at a question: what stands between an attempt and the next, as the policy reads it.

SCoRe (arXiv:2409.12917) asks for the second attempt under x2 = [x1, y1, p]: the question, the first attempt, an
instruction. Here p is a turn of its own, in the policy's chat markup where the question is, or a line within one chain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openrlhf_prm.data.prompts import PromptOptions
from openrlhf_prm.options import Options, option

IN_A_TURN = (
    "There may be an error in the solution above. If there is one, correct it. "
    "Then write the whole solution once more, with its answer in the same form."
)
IN_A_CHAIN = "Wait, let me check this solution once more."
_SPOT = "openrlhf-prm-attempt"


@dataclass(frozen=True, kw_only=True)
class AttemptOptions(Options):
    """`--self_correction.<field>`: how attempts at one question follow each other."""

    attempts: int = option(2, "attempts at a question, each of which reads those before it", least=1)
    instruction: str | None = option(
        None, "what asks for the next attempt; without it, a text that says there may be an error", kind=str
    )
    attempt_tokens: int | None = option(
        None, "token limit of each attempt; without it, --rollout.max_new_tokens", least=1, kind=int
    )
    within_chain: bool = option(
        False, "attempts stand in one chain, with the instruction as a line between them, instead of in turns"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instruction is not None and not self.instruction.strip():
            raise ValueError("instruction is empty: leave it out, or say what asks for the next attempt")

    @property
    def asked(self) -> str:
        """The instruction as it stands, without white space around it."""
        return (self.instruction or (IN_A_CHAIN if self.within_chain else IN_A_TURN)).strip()

    def unread(self, prefix: str) -> dict[str, str]:
        """One attempt needs nothing between attempts."""
        alone = dict.fromkeys(("instruction", "within_chain"), f"--{prefix}.attempts above 1")
        return super().unread(prefix) | (alone if self.attempts == 1 else {})


def words_between(options: AttemptOptions, prompts: PromptOptions, tokenizer: Any) -> str:
    """The text between an attempt and the next. Raises ValueError where the chat template has no place for it.

    In a chain: the instruction on a line of its own. In turns: what the chat's markup writes behind an assistant's
    message before the next one, the end of that message included; without a chat, the instruction in the template of
    questions, or on a line of its own where there is no template.
    """
    if options.within_chain:
        return f"\n{options.asked}\n"
    if not prompts.apply_chat_template:
        line = prompts.around(options.asked)
        return f"\n{line}\n" if line == options.asked else f"\n{line}"
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": _SPOT},
        {"role": "user", "content": prompts.around(options.asked)},
    ]
    try:
        chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # of whatever the template's author raises
        raise ValueError(f"--data.apply_chat_template: the policy's template takes no second turn: {error}") from None
    _, found, behind = chat.rpartition(_SPOT)
    if not found:
        raise ValueError("--data.apply_chat_template: the policy's template leaves out the first attempt")
    return behind


def without_ending(tokens: Sequence[int], ended: bool, within_chain: bool) -> list[int]:
    """The tokens of an attempt that another one follows: in a chain without the end-of-text token that `ended` it,
    behind which no chain goes on.
    """
    return list(tokens[:-1] if within_chain and ended else tokens)


def joined(attempt: Sequence[int], words: Sequence[int]) -> list[int]:
    """The tokens between an attempt and the next: `words`, less a first one with which the attempt ends already, as a
    chat's end of message is.
    """
    return list(words[1:] if attempt and words and attempt[-1] == words[0] else words)
