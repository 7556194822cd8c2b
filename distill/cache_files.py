"""The user's cache: small files that are written whole or not at all, and read only if they are plain files."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path


def cache_root() -> Path:
    """`$STEINDREAMER_CACHE`, or `~/.cache/steindreamer`."""
    chosen = os.environ.get("STEINDREAMER_CACHE")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "steindreamer"


def read_plain(path: Path) -> bytes | None:
    """The contents; None unless it is a regular file that can be read. Links are not followed, pipes not waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def write_whole(path: Path, content: bytes) -> None:
    """Readers see the old contents or the new ones; a link at `path` is replaced, not followed. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A random name, created exclusively.
    descriptor, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
