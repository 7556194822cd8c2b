"""The user's cache: small files that are written atomically and read only if they are regular files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from steindreamer.atomic_file import write_atomically


def cache_root() -> Path:
    """The cache folder, `$STEINDREAMER_CACHE` or `~/.cache/steindreamer`."""
    chosen = os.environ.get("STEINDREAMER_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "steindreamer"


def read_plain(path: Path) -> bytes | None:
    """Read a file; None unless it is a readable regular file. Links are not followed, and pipes are not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old contents or the new ones.

    A link at `path` is replaced, not followed. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
