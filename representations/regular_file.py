"""Reading files that may be anything: pipes, devices and folders are refused instead of waited for."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """The whole content. Raises OSError if it cannot be opened, ValueError for what is no regular file."""
    # Without O_NONBLOCK, opening a pipe waits until somebody writes to it. Windows knows neither pipes nor the flag,
    # but opens files as text unless told otherwise.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    # Looked at before it is opened, because opening alone does something on some devices, and after, because it may
    # have been replaced in between.
    _check(path, path.stat())
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        _check(path, status)
        # No more than it holds now: one that another process keeps writing to would have no end.
        return file.read(status.st_size)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
        kind = next((name for name, test in kinds.items() if test(status.st_mode)), "a device")
        raise ValueError(f"{path} is {kind}, not a file")
