"""Errors of step scoring. What a caller did wrong is a `ValueError`; what a service did wrong is not."""

from pydantic import ValidationError


class ContextLengthError(ValueError):
    """The rendered solution has more tokens than the PRM's context. Score with `truncate=True`, or shorten it."""


class StepScoringError(RuntimeError):
    """The engine or the service gave no usable score (a missing position, a non-finite value, a server error)."""


class ServiceUnavailableError(StepScoringError):
    """The service could not be reached, or stayed overloaded, after every retry."""


class AuthenticationError(StepScoringError):
    """The service refused the API key (HTTP 401 or 403)."""


def in_words(error: ValidationError) -> str:
    """What pydantic found wrong, in one line: `steps: Input should be a valid list; ...`, without its links."""
    return "; ".join(
        ": ".join(
            [*([".".join(map(str, fault["loc"]))] if fault["loc"] else []), fault["msg"].removeprefix("Value error, ")]
        )
        for fault in error.errors()
    )
