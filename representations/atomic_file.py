"""A file that appears whole or not at all, also in folders that nobody vouches for."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.steindreamer-[0-9a-f]{16}\.partial")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader and no kill ever sees half of it; what was there stays if writing fails.

    The content goes to a new file beside it, under a name that nobody can guess and no link can stand for, and takes
    the file's place once it is on the disk. A link at `path` itself is replaced, never followed. Permissions are what
    the umask leaves of 0o666. Raises OSError, also where `path` is a folder.
    """
    temporary = path.with_name(f".steindreamer-{secrets.token_hex(8)}.partial")
    # Windows knows no O_NOFOLLOW and opens files as text unless told otherwise.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def is_temporary(name: str) -> bool:
    """Whether a file of this name is what a kill left of `write_atomically`."""
    return _TEMPORARY.fullmatch(name) is not None


def _sync_folder(folder: Path) -> None:
    """Bring the folder's list of names to the disk: without it a power cut can undo the rename."""
    # Not every system opens folders and not every file system syncs them; the file is in its place either way.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
