"""A disk that is full, or gone, is told in one line with the file that could not be written."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

ONCE_MORE = "once there is room, run the same command again"
FULL = os.strerror(errno.ENOSPC)
FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}


@contextlib.contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Errors of the block that concern an open file, which say nothing of its name, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def disk_fault(error: Exception) -> str | None:
    """What is wrong with the disk, in one line; None where something else is."""
    if not isinstance(error, OSError):  # libraries in other languages have errors of their own
        return f"a file cannot be written: {FULL}" if FULL in str(error) else None
    if error.errno not in FAULTS:
        return None
    return f"{error.filename or 'a file'} cannot be written: {error.strerror}"
