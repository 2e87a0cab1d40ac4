"""Why a run on Ray ended, in one line."""

import ray

LONGEST = 600


def one_line(error: BaseException) -> str:
    """What began it: the error of the task at the bottom, whatever tasks waited for it; or which actor died of what."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.RayActorError):
        text = f"a process of the run died: {text}"
    elif not isinstance(error, ValueError | RuntimeError | ray.exceptions.RayError):
        text = f"{type(error).__name__}: {text}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
