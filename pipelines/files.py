"""File access in a run's folder, which may belong to someone else: regular files only, links are not followed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from steindreamer.atomic_file import write_atomically

__all__ = ["append_text", "read_regular", "write_atomically"]


def append_text(path: Path, text: str) -> None:
    """Append text to a file, which is created if it does not exist.

    Raises OSError unless the path is a regular file with a single hard link, so that nothing is written elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _flags("O_NOFOLLOW", "O_NONBLOCK"), 0o666)
    with open(descriptor, "a", encoding="utf-8", newline="\n") as file:
        status = _regular(file.fileno(), path)
        if status.st_nlink > 1:
            raise OSError(errno.EMLINK, "it has another hard link", str(path))
        file.write(text)


def read_regular(path: Path, limit: int | None = None) -> bytes:
    """The content of a regular file. Raises OSError for pipes, devices and files larger than `limit` bytes."""
    descriptor = os.open(path, os.O_RDONLY | _flags("O_NONBLOCK", "O_BINARY"))
    with open(descriptor, "rb") as file:
        size = _regular(file.fileno(), path).st_size
        if limit is not None and size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit} bytes", str(path))
        return file.read()


def _regular(descriptor: int, path: Path) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return status


def _flags(*names: str) -> int:
    """The bitwise or of the named flags of `os.open` that this platform defines."""
    flags = 0
    for name in names:
        flags |= getattr(os, name, 0)
    return flags
