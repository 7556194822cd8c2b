"""Exceptions of other libraries as one line that names the file or folder concerned."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 300
_MEMORY = re.compile("can't allocate memory|out of memory|not enough memory|unable to allocate", re.IGNORECASE)


@contextmanager
def foreign_errors(what: object, *passing: type[Exception]) -> Iterator[None]:
    """Convert exceptions raised within the context to a one-line ValueError that begins with `what`, with the cause
    chained.

    Put only calls of other libraries inside, so that a bug of this package is not reported as an error in the user's
    files. An ImportError passes unchanged, since it names the package to install, and so do the exceptions in
    `passing`.
    """
    try:
        yield
    except (ImportError, *passing):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The reason of an exception, in one line of at most 300 characters."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return f"needs more memory than is available ({text or type(error).__name__})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # The text of other exceptions is only a key or an attribute's name.
    plain = isinstance(error, ValueError | OSError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}: {text}" if text else type(error).__name__
