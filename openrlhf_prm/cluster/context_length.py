"""Whether what a policy may write fits into what a PRM can read, from the checkpoint's files alone."""

import json
from collections.abc import Iterable
from pathlib import Path

# Rotary embeddings under which `max_position_embeddings` is the context as it stands.
_PLAIN_ROPE = ("default", "llama3")


def model_context(model: str, max_model_len: int | None = None) -> int | None:
    """The number of tokens that vLLM will let a checkpoint read: `max_model_len` where it is given, else config.json's
    `max_position_embeddings`. None where that cannot be told: no folder, no such key, scaled rotary embeddings.
    """
    if max_model_len is not None:
        return max_model_len
    file = Path(model) / "config.json"
    if not file.is_file():
        return None
    config = json.loads(file.read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) not in _PLAIN_ROPE:
        return None
    return config.get("max_position_embeddings")


def response_limit(
    given: int | None, usual: int, model: str, max_model_len: int | None, questions: Iterable[str]
) -> int:
    """The token limit of responses that the PRM `model` is to read: `given`, which must fit (`require_room`), or
    `usual`, or, where its context is too short for that, three quarters of what it leaves beside the longest question;
    the rest is for what most families write between steps.
    """
    questions = list(questions)
    if given is not None:
        require_room(model, max_model_len, questions, given)
        return given
    context = model_context(model, max_model_len)
    longest = max(questions, key=len, default="")
    if context is None or len(longest.encode()) <= context - 1 - usual:
        return usual
    left = context - 1 - _tokens(model, longest)
    return usual if usual <= left else max(1, left * 3 // 4)


def require_room(model: str, max_model_len: int | None, questions: Iterable[str], max_new_tokens: int) -> None:
    """Raises ValueError where a response of `max_new_tokens` tokens to the longest question cannot fit into the context
    of the PRM `model`, which would stop a run in its middle.

    Steps need tokens of their own in most families, so a response that passes may still be too long. Questions are
    counted with the PRM's tokenizer, which is loaded only where their characters do not settle it.
    """
    context = model_context(model, max_model_len)
    if context is None:
        return
    room = context - 1 - max_new_tokens  # vLLM keeps one token of the context for itself
    longest = max(questions, key=len, default="")
    if len(longest.encode()) <= room:
        return
    tokens = 0
    if room >= 0:
        tokens = _tokens(model, longest)
    if tokens > room:
        question = f" and a question of {tokens}" if tokens else ""
        raise ValueError(
            f"--rollout.max_new_tokens {max_new_tokens}: a response of so many tokens{question} does not fit the PRM's "
            f"context of {context}; lower it, or raise --prm.max_model_len as far as the PRM allows"
        )


def _tokens(model: str, text: str) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"])
