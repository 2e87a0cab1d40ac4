"""The tokenizer inside a GGUF file, rebuilt for Hugging Face.

GGUF keeps a byte-level BPE as its tokens in the order of their ids, their kinds, the merges in order of rank, and a
name for the rule that cuts text into words before BPE (`tokenizer.ggml.pre`). That rule is not part of the file, so
each must be known here. Format: the GGUF specification, keys `tokenizer.ggml.*`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

CONTROL = 3  # the kind of a special token among `tokenizer.ggml.token_type`
ROLES = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _digits_then_gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


PRE_TOKENIZERS: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _digits_then_gpt2,
}


def read_fields(path: Path) -> dict[str, Any]:
    """The keys and values of the file's head. Raises ValueError for what is no GGUF file."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(path))
    except ValueError as error:
        raise ValueError(f"not a GGUF file ({error})") from None
    return {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}


def build_tokenizer(fields: dict[str, Any]) -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    """The tokenizer, and the ids of its special tokens by role (bos, eos, pad, unk; those the file names).

    Padding falls back to the end of sequence. Raises ValueError for another kind of tokenizer than byte-level BPE, a
    pre-tokenizer that is not known, or a file without an end of sequence.
    """
    kind, rule = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2":
        raise ValueError(f"the tokenizer is of kind {kind!r}; only byte-level BPE ('gpt2') can be converted")
    if rule not in PRE_TOKENIZERS:
        raise ValueError(f"the pre-tokenizer {rule!r} is not known; known: {', '.join(PRE_TOKENIZERS)}")
    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        role: int(fields[f"tokenizer.ggml.{name}_token_id"])
        for role, name in ROLES.items()
        if f"tokenizer.ggml.{name}_token_id" in fields
    }
    if "eos" not in special:
        raise ValueError("the file names no end-of-sequence token")
    special.setdefault("pad", special["eos"])
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = PRE_TOKENIZERS[rule]()
    tokenizer.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    controls = [token for token, token_kind in zip(tokens, kinds, strict=True) if token_kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in controls])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=fields.get("tokenizer.chat_template"),
        model_max_length=fields[f"{fields['general.architecture']}.context_length"],
        clean_up_tokenization_spaces=False,
        **{f"{role}_token": tokens[number] for role, number in special.items()},
    ), special
