"""Printing that never ends the work: readers go away, disks fill up, terminals lack letters, streams are closed."""

from __future__ import annotations

import errno
import io
import os
import sys

_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)
"""Nobody reads any more, as after `| head -1`: no error."""

_lost: list[str] = []
"""Why standard output could not be written, if it was for another reason."""


def repair_streams() -> None:
    """Give every closed standard stream the null device, and let no letter be one that cannot be printed.

    Without this the next file to be opened would take the place of a closed stream, and be printed into.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
    sys.stdout = sys.stdout or _null()
    sys.stderr = sys.stderr or _null()
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


def put(text: str, end: str = "\n") -> None:
    """Print to standard output at once, if there is somebody to read it."""
    try:
        print(_printable(text, sys.stdout, "replace"), end=end, flush=True)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        _silence(error)


def complain(text: str) -> None:
    """Print a line to standard error, if it can be written."""
    try:
        print(_printable(text, sys.stderr, "backslashreplace"), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # there is nobody left to tell


def output_lost() -> str:
    """Why standard output could not be written, once; empty if it could, or if nobody wanted to read it."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        _silence(error)
    return _lost.pop() if _lost else ""


def _printable(text: str, stream: object, errors: str) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, errors).decode(encoding)


def _silence(error: OSError | ValueError) -> None:
    """Nothing more is printed; what is still in the buffer goes nowhere, so that it is no error at the end either."""
    if isinstance(error, OSError) and error.errno not in _GONE:
        _lost[:] = [error.strerror or str(error)]
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):  # no file at all, or a closed one
        sys.stdout = _null()


def _null() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")
