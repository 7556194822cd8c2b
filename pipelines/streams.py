"""Printing that never raises: closed pipes, full disks, closed streams and terminals with a limited character set."""

from __future__ import annotations

import errno
import io
import os
import sys

_GONE = (errno.EPIPE, errno.ESHUTDOWN, errno.ECONNRESET)
"""Errors of a reader that has closed the pipe, as after `| head -1`; they are ignored."""

_lost: list[str] = []
"""Reason why standard output could not be written, if it was not a closed pipe."""


def repair_streams() -> None:
    """Open the null device for every closed standard stream, and escape characters that the terminal cannot print.

    Otherwise the next file to be opened would get the descriptor of a closed stream and receive its output.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, which is this one
    sys.stdout = sys.stdout or _null()
    sys.stderr = sys.stderr or _null()
    for stream, errors in ((sys.stdout, "replace"), (sys.stderr, "backslashreplace")):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=errors)


def put(text: str, end: str = "\n") -> None:
    """Print to standard output and flush; errors are recorded, see `output_lost`."""
    try:
        print(_printable(text, sys.stdout, "replace"), end=end, flush=True)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        _silence(error)


def complain(text: str) -> None:
    """Print a line to standard error; errors are ignored."""
    try:
        print(_printable(text, sys.stderr, "backslashreplace"), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass  # there is no stream left to report to


def output_lost() -> str:
    """The reason why standard output could not be written, reported once; empty if it could, or if the reader closed
    it.
    """
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
    """Redirect standard output to the null device, so that flushing the buffer at exit raises no error either."""
    if isinstance(error, OSError) and error.errno not in _GONE:
        _lost[:] = [error.strerror or str(error)]
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError, AttributeError):  # not a file, or a closed one
        sys.stdout = _null()


def _null() -> io.TextIOWrapper:
    return open(os.devnull, "w", encoding="utf-8")
