"""Reading and writing in a run's folder, which may be somebody else's: whole files, and nothing through a link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader and no kill ever sees half of it; what was there stays if writing fails.

    A link in its place is replaced, not followed. Raises OSError that names `path`.
    """
    from ..representations import atomic_file  # and torch with it: reading and looking around does without

    try:
        atomic_file.write_atomically(path, content)
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # not the temporary file's name, which means nothing
        raise


def append_text(path: Path, text: str) -> None:
    """Add to the end of a file, begun if there is none.

    Raises OSError for anything but a file with this one name: what is written must not end up elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _flags("O_NOFOLLOW", "O_NONBLOCK"), 0o666)
    with open(descriptor, "a", encoding="utf-8", newline="\n") as file:
        status = _regular(file.fileno(), path)
        if status.st_nlink > 1:
            raise OSError(errno.EMLINK, "it has a second name elsewhere (hard link)", str(path))
        file.write(text)


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of an ordinary file. Raises OSError, also for pipes, devices and more than `limit` bytes."""
    descriptor = os.open(path, os.O_RDONLY | _flags("O_NONBLOCK", "O_BINARY"))
    with open(descriptor, "rb") as file:
        size = _regular(file.fileno(), path).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        return file.read()


def _regular(descriptor: int, path: Path) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    return status


def _flags(*names: str) -> int:
    """Of `os.open`, those that this system has."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags
