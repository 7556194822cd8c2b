"""Atomic writing of files, also safe in folders that other users can write to."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.steindreamer-[0-9a-f]{16}\.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file atomically: neither a reader nor a killed process leaves a partial file, and a failure keeps the old
    one.

    The content is written to a new file next to it, with an unpredictable name that cannot be a link, and renamed once
    it is synced to disk. A link at `path` itself is replaced, not followed. Permissions are 0o666 minus the umask.

    Raises:
        OSError: The file cannot be written, or `path` is a folder.
    """
    temporary = path.with_name(f".steindreamer-{secrets.token_hex(8)}.partial")
    # Windows has no O_NOFOLLOW, and opens files as text without O_BINARY.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(temporary, flags, 0o666)
    except OSError as error:
        _renamed(error, path)
        raise
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            _renamed(error, path)
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _renamed(error: OSError, path: Path) -> None:
    """Let the error name the file that was wanted: the temporary one's name means nothing."""
    error.filename, error.filename2 = str(path), None


def is_temporary(name: str) -> bool:
    """Whether a file of this name is a temporary file that a killed `write_atomically` left behind."""
    return _TEMPORARY.fullmatch(name) is not None


def _sync_folder(folder: Path) -> None:
    """Sync the folder's entries to disk; without it, a power failure can undo the rename."""
    # Not every system can open folders, and not every file system can sync them; the file is complete in any case.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
