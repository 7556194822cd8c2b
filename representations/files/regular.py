"""Reading of regular files; pipes, devices and folders are refused, since reading them could block."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Read the whole file. Raises OSError if it cannot be opened, ValueError if it is not a regular file."""
    # Without O_NONBLOCK, opening a pipe blocks until another process writes to it. Windows has neither named pipes nor
    # this flag, but opens files as text without O_BINARY.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    # Checked before opening, because opening some devices has side effects, and after opening, because the file may
    # have been replaced in between.
    _check(path, path.stat())
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        _check(path, status)
        # Read only the current size: a file that another process keeps appending to would never end.
        return file.read(status.st_size)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {"a folder": stat.S_ISDIR, "a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK}
        kind = next((name for name, test in kinds.items() if test(status.st_mode)), "a device")
        raise ValueError(f"{path} is {kind}, not a file")
