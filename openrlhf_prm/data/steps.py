"""Token ids of a response -> its reasoning steps.

A splitter (`vllm_prm.splitters`) looks at text and says where steps end; `split_steps` carries those ends over to
tokens by incremental decoding. The PRM's tokenizer differs from the policy's, so text crosses that boundary and token
spans stay here: nothing is ever re-tokenised.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate

from vllm_prm.splitters import split_text, visible

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Step:
    """One reasoning step: its text with the trailing separator, and its token span [start, end) within the response.

    text_end: where the tokens of its visible text end. Those behind only separate it from the next step or end the
    response. A step without visible text has none that separate: text_end is its end.
    """

    text: str
    start: int
    end: int
    text_end: int = field(default=-1, compare=False)


def split_steps(token_ids: Sequence[int], tokenizer, splitter: str) -> list[Step]:
    """The steps of a response as text and token spans.

    The spans partition the tokens in order, so decoding the tokens of all spans gives back the response; the texts
    joined are the decoded response without special tokens. A token that holds the end of one step and the start of
    the next belongs to the earlier step; steps that would own no token are merged into the one before. Special tokens
    (end of sequence) belong to the last step, which is also where a response cut in the middle of a step ends. No
    token: no step. Only special tokens: one step with empty text.

    Raises ValueError for an unknown splitter.
    """
    if not token_ids:
        split_text("", splitter)
        return []
    text, token_ends = decode_with_offsets(token_ids, tokenizer)
    steps: list[Step] = []
    pending, start, offset = "", 0, 0
    for piece in split_text(text, splitter):
        offset += len(piece)
        pending += piece
        end = start
        while end < len(token_ids) and (token_ends[end - 1] if end else 0) < offset:
            end += 1
        if end > start:
            steps.append(Step(pending, start, end))
            pending, start = "", end
        elif steps:
            steps[-1] = Step(steps[-1].text + pending, steps[-1].start, steps[-1].end)
            pending = ""
    if not steps:
        steps = [Step(text, 0, len(token_ids))]
    else:
        steps[-1] = Step(steps[-1].text + pending, steps[-1].start, len(token_ids))
    return [replace(step, text_end=_text_end(step, text, token_ends)) for step in steps]


def _text_end(step: Step, text: str, token_ends: Sequence[int]) -> int:
    """The token count at which a step's visible text ends; the step's end where it shows nothing."""
    for end in range(step.end, step.start, -1):
        if visible(text[token_ends[end - 2] if end > 1 else 0 : token_ends[end - 1]]):
            return end
    return step.end


def decode_with_offsets(token_ids: Sequence[int], tokenizer) -> tuple[str, list[int]]:
    """The decoded text without special tokens, and for each token the number of characters decoded up to and
    including it.

    A token that ends inside a multi-byte character adds nothing; the token that completes the character adds it.
    Where the decoded tokens joined are the decoded text, they are its pieces. Else decoding runs over a sliding window
    (linear in the length) and is checked against decoding everything at once; where a tokenizer's decoding depends on
    more context than the window holds, every prefix is decoded instead (quadratic, exact).
    """
    text = _decode(tokenizer, token_ids)
    alone = {token: _decode(tokenizer, [token]) for token in set(token_ids)}
    pieces = [alone[token] for token in token_ids]
    if _REPLACEMENT not in text and "".join(pieces) == text:
        return text, list(accumulate(map(len, pieces)))
    pieces, window, read = [], 0, 0
    for end in range(1, len(token_ids) + 1):
        known, new = _decode(tokenizer, token_ids[window:read]), _decode(tokenizer, token_ids[window:end])
        if len(new) > len(known) and not new.endswith(_REPLACEMENT):
            pieces.append(new[len(known) :])
            window, read = read, end
        else:
            pieces.append("")
    lengths, total = [], 0
    for piece in pieces:
        total += len(piece)
        lengths.append(total)
    if not text.startswith("".join(pieces)) or text[total:].strip(_REPLACEMENT):
        lengths = [
            len(_decode(tokenizer, token_ids[:end]).rstrip(_REPLACEMENT)) for end in range(1, len(token_ids) + 1)
        ]
    # A response cut inside a character ends in a replacement character: it belongs to the last token.
    lengths[-1] = len(text)
    return text, lengths


def _decode(tokenizer, token_ids: Sequence[int]) -> str:
    return tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
