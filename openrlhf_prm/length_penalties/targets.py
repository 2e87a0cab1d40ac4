"""Target lengths that stand in the prompt ("Think for 512 tokens."), for the length penalties that need them."""

import copy
import random
import re


def target_of_row(index: int, seed: int, smallest: int, largest: int) -> int:
    """The target of a dataset's row, uniform over smallest..largest; the same in every epoch and after a resume."""
    return random.Random(f"{seed}:{index}").randint(smallest, largest)


def with_target(prompt, template: str, target: int):
    """The prompt with the filled template behind it: a text, or a chat as a list of messages whose last user message
    gets it. The original is not changed.

    Raises ValueError for a chat without a user message.
    """
    sentence = template.replace("{}", str(target))  # not format: it may hold braces of its own
    if isinstance(prompt, str):
        return _joined(prompt, sentence)
    chat = copy.deepcopy(prompt)
    for message in reversed(chat):
        if message["role"] == "user":
            message["content"] = _joined(message["content"], sentence)
            return chat
    raise ValueError(f"--length_penalty.target_template: the chat has no user message: {prompt!r}")


def read_target(prompt: str, template: str) -> int:
    """The target stated in a prompt: the template's last occurrence.

    Raises ValueError where it does not occur.
    """
    before, after = template.split("{}")
    targets = re.findall(re.escape(before) + r"(\d+)" + re.escape(after), prompt)
    if not targets:
        raise ValueError(f"--length_penalty.target_template {template!r} does not occur in the prompt {prompt!r}")
    return int(targets[-1])


def _joined(text: str, sentence: str) -> str:
    return text + sentence if not text or text[-1].isspace() else f"{text} {sentence}"
