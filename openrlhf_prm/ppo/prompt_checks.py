"""The rows of prompt datasets, read before any engine starts."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

from openrlhf_prm.cluster.context_length import model_context, require_room
from openrlhf_prm.ppo.plugin_options import PluginOptions


def check_prompts(args: SimpleNamespace, options: PluginOptions) -> None:
    """Raises ValueError, naming flag and line, for a dataset that cannot be trained on or evaluated, and for responses
    that the PRM could not read.
    """
    if args.data.prompt_dataset is None and options.acts:
        raise ValueError("--data.prompt_dataset is missing: the questions to train on")
    longest = []
    for flag, paths in (("--data.prompt_dataset", args.data.prompt_dataset), ("--eval.dataset", args.eval.dataset)):
        for path in (paths or "").split(","):
            longest.append(_longest_question(flag, path.strip(), args.data.input_key, args.data.label_key))
    if options.workers is not None:
        _check_room(args, options, longest)


def _longest_question(flag: str, path: str, input_key: str, label_key: str | None) -> str:
    """The longest question that is a text. Every row of a local JSONL file must have its question, a text or a chat,
    and its label; other formats are the host's business.
    """
    longest, number = "", 0
    if not path.endswith(".jsonl"):
        return longest
    if not Path(path).is_file():
        raise ValueError(f"{flag}: there is no file {path}")
    for number, row in _rows(flag, path):
        for key in filter(None, (input_key, label_key)):
            if row.get(key) in (None, "", []):
                raise ValueError(f"{flag}: {path} line {number} has no {key!r}")
        question = row[input_key]
        if not isinstance(question, str | list):
            raise ValueError(
                f"{flag}: {path} line {number}: {input_key!r} must be a text or a list of messages, got {question!r}"
            )
        if isinstance(question, str):
            longest = max(longest, question, key=len)
    if not number:
        raise ValueError(f"{flag}: {path} has no rows")
    return longest


def _rows(flag: str, path: str) -> Iterator[tuple[int, dict]]:
    """The objects of a JSONL file and their line numbers, from 1."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except UnicodeDecodeError:
                raise ValueError(f"{flag}: {path} line {number} is not UTF-8") from None
            except json.JSONDecodeError as error:
                raise ValueError(f"{flag}: {path} line {number} is not JSON: {error.msg}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{flag}: {path} line {number} is no object with keys")
            yield number, row


def _check_room(args: SimpleNamespace, options: PluginOptions, questions: list[str]) -> None:
    """The PRM must be able to read what the policy may write."""
    model, max_model_len = options.prm.model_name_or_path, options.workers.max_model_len
    context = model_context(model, max_model_len)
    # The host cuts prompts, so that prompt and response together stay within --data.max_len.
    if context is None or args.data.max_len < context:
        return
    if args.rollout.max_new_tokens is None:
        raise ValueError(
            f"--data.max_len {args.data.max_len}: without --rollout.max_new_tokens prompt and response may have so "
            f"many tokens together, which do not fit the PRM's context of {context}"
        )
    require_room(model, max_model_len, questions, args.rollout.max_new_tokens)
