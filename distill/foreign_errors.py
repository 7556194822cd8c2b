"""What other libraries raise, as one line that names the file or folder it was about."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 300
_MEMORY = re.compile("can't allocate memory|out of memory|not enough memory|unable to allocate", re.IGNORECASE)


@contextmanager
def foreign_errors(what: object, *passing: type[Exception]) -> Iterator[None]:
    """Turns any exception raised within into a ValueError of one line that begins with `what`; the cause is chained.

    Only calls of another library belong inside: a mistake of our own must not be told as one of the user's files. An
    ImportError passes, since it names the package to install, and so do those of `passing`.
    """
    try:
        yield
    except (ImportError, *passing):
        raise
    except Exception as error:
        raise ValueError(f"{what}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What went wrong, in one line of at most 300 characters."""
    text = " ".join(str(error).split())[:_LONGEST]
    if isinstance(error, MemoryError) or _MEMORY.search(text):
        return f"wants more memory than there is ({text or type(error).__name__})"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # Others put only a key or an attribute's name into the text.
    plain = isinstance(error, ValueError | OSError | RuntimeError) and text
    return text if plain else f"{type(error).__name__}: {text}" if text else type(error).__name__
