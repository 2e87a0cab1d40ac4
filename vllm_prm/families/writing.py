"""Writing a solution as tokens, with the step positions kept beside them.

Two kinds of text are told apart. *Recipe* text is the family's own: its special tokens count. *Content* is what others
wrote, a step or a chat message: a special token spelled out in it (`<|im_end|>`, `<extra_0>`) stays ordinary
characters, so a policy cannot end a turn or a step by writing the token's name.
"""

import re
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from vllm_prm.families.prm_family import Rendered


def special_literals(tokenizer: Any, tags: Collection[str] = ()) -> re.Pattern[str] | None:
    """Finds the tokenizer's special tokens, and those of `tags` that it would cut out of a text, in a text."""
    added = tokenizer.added_tokens_decoder.values()
    literals = {str(token) for token in tokenizer.all_special_tokens} | {t.content for t in added if t.special}
    literals |= {token.content for token in added} & set(tags)
    # A literal of one character cannot be written as anything else.
    longest_first = sorted((re.escape(text) for text in literals if len(text) > 1), key=len, reverse=True)
    return re.compile("|".join(longest_first)) if longest_first else None


def filled(template: str, **texts: str) -> str:
    """`template` with each `{name}` replaced by a text, in one pass: a text that holds `{step}` stays as it is."""
    fields = "|".join(re.escape(f"{{{name}}}") for name in texts)
    return re.sub(fields, lambda match: texts[match[0][1:-1]], template)


def require_fields(option: str, template: str, names: Sequence[str]) -> None:
    """`ValueError` naming the `option` unless its template holds each of `names` once, in braces."""
    if not all(template.count(f"{{{name}}}") == 1 for name in names):
        wanted = " and ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{option} must hold {wanted} once each, got {template!r}")


@dataclass(frozen=True)
class Turn:
    """What a chat template writes before a message's content, and which characters it strips from either end of that
    content (None: all white space)."""

    before: str
    left: str | None
    right: str | None

    def stripped(self, content: str) -> str:
        """`content` as the template would leave it."""
        return content.lstrip(self.left).rstrip(self.right)


class Writer:
    """Collects text and token ids; neighbouring texts are encoded together, as one string."""

    def __init__(self, tokenizer: Any, literals: re.Pattern[str] | None) -> None:
        self._tokenizer = tokenizer
        self._literals = literals
        self._token_ids: list[int] = []
        self._positions: list[int] = []
        self._text = ""
        self._cuts: list[int] = []
        self._marks: list[tuple[int, int | None]] = []

    def recipe(self, text: str) -> None:
        """Text of the family's recipe, special tokens included."""
        self._text += text

    def content(self, text: str) -> None:
        """Text of a step or a message: special tokens spelled out in it are cut after their first character."""
        if self._literals is not None:
            self._cuts += [len(self._text) + match.start() + 1 for match in self._literals.finditer(text)]
        self._text += text

    def turn(self, turn: Turn, content: str) -> None:
        """A message as the chat template writes it, up to the end of its content."""
        self.recipe(turn.before)
        self.content(turn.stripped(content))

    def ids(self, token_ids: Sequence[int]) -> None:
        """Tokens as they are; they merge with no text around them."""
        self.separate()
        self._token_ids += token_ids

    def mark(self, token_id: int | None = None) -> None:
        """The last token written is where the next step is scored. `ValueError`, here or later, unless it ends exactly
        here and, if `token_id` is given, is that token."""
        if self._text:
            self._marks.append((len(self._text), token_id))
        else:
            self._positions.append(len(self._token_ids) - 1)

    def separate(self) -> None:
        """What follows is encoded apart from what stands before."""
        start = 0
        for end in [*self._cuts, len(self._text)]:
            if start < end:
                self._encode(start, end)
            start = end
        self._text, self._cuts, self._marks = "", [], []

    def rendered(self) -> Rendered:
        """All that was written."""
        self.separate()
        return Rendered(self._token_ids, self._positions)

    def _encode(self, start: int, end: int) -> None:
        text = self._text[start:end]
        marks = [(at - start, token_id) for at, token_id in self._marks if start < at <= end]
        if not marks:
            self._token_ids += self._tokenizer.encode(text, add_special_tokens=False)
            return
        encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        starts = [first for first, _ in encoded["offset_mapping"]]
        for at, token_id in marks:
            index = bisect_left(starts, at) - 1
            last_token = encoded["input_ids"][index]
            if encoded["offset_mapping"][index][1] != at or token_id not in (None, last_token):
                raise ValueError(
                    f"the end of step {len(self._positions) + 1} is no token of its own: the tokenizer made "
                    f"{self._tokenizer.convert_ids_to_tokens(last_token)!r} of it, after {text[max(0, at - 40) : at]!r}"
                )
            self._positions.append(len(self._token_ids) + index)
        self._token_ids += encoded["input_ids"]


# No template writes a vertical tab of its own, and none so many newlines after a content.
_PROBE = "\n\n\n\x0b"


def chat_turns(
    tokenizer: Any, roles: Sequence[str], path: str, add_generation_prompt: bool = False
) -> tuple[list[Turn], str]:
    """The tokenizer's chat template around messages of `roles`: a turn per message, and the text after the last one.

    The template is rendered with markers for contents, so that contents can be written apart from it. Raises
    `ValueError` if there is no template, it refuses the roles, or it does not write every message once and in order.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise ValueError(f"the tokenizer of {path} has no chat template, so messages cannot be written for it")
    markers = [f"\ue000{index}\ue001" for index in range(len(roles))]
    messages = [
        {"role": role, "content": f"{_PROBE}{marker}{_PROBE[::-1]}"}
        for role, marker in zip(roles, markers, strict=True)
    ]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=add_generation_prompt)
    except TemplateError as error:
        raise ValueError(f"the chat template of {path} refuses messages of the roles {list(roles)}: {error}") from error
    if re.findall("\ue000\\d+\ue001", text) != markers:
        raise ValueError(f"the chat template of {path} does not write every message of {list(roles)} once, in order")
    turns = []
    for marker in markers:
        before, _, text = text.partition(marker)
        before, left = _stripped_by(before, _PROBE, str.endswith, str.removesuffix)
        text, right = _stripped_by(text, _PROBE[::-1], str.startswith, str.removeprefix)
        turns.append(Turn(before, left, right))
    return turns, text


def _stripped_by(text, probe, has, remove) -> tuple[str, str | None]:
    for kept, stripped in ((probe, ""), ("\x0b", "\n")):
        if has(text, kept):
            return remove(text, kept), stripped
    return text, None
