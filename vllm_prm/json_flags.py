"""Flags whose value is a JSON object."""

import json


def json_object(flag: str, text: str) -> dict:
    """The object in `text`. `ValueError` naming `flag` for anything else."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{flag} must be a JSON object, got {text!r}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{flag} must be a JSON object, got {text!r}")
    return value
