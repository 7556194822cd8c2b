"""Lock of a run's folder: one process at a time may write, and the lock ends with its process."""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..errors import UserError

logger = logging.getLogger(__name__)

NAME = ".lock"
ATTEMPTS = 20
_OFFSET = 1 << 30
"""Offset of the locked byte. Windows locks byte ranges for readers too, so a byte far behind the content is locked."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class FolderInUse(UserError):
    """Another process owns the folder of a run."""


class _Busy(Exception):
    """Another process holds the lock."""


class _NoLocks(Exception):
    """The file system does not support locks."""


def owner_of(folder: Path) -> str:
    """The process that owns a folder, in words; empty if there is none. The lock is neither taken nor tried."""
    path = folder / NAME
    if not path.is_file():
        return ""
    owner = _owner(path)
    return "" if owner and _has_ended(owner) else _in_words(owner)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own an existing folder for the duration of the context.

    The operating system releases the lock when the process ends, so a killed process does not block the folder. On file
    systems without locks, a file with the process ID is used instead, and a line is logged.

    Raises:
        FolderInUse: Another process owns the folder; the message names it.
        OSError: The folder is read-only.
    """
    path = folder / NAME
    try:
        descriptor = _locked(path)
    except _Busy:
        raise FolderInUse(_busy(folder, _owner(path))) from None
    except _NoLocks:
        logger.info(f"this file system does not support locks; using the process ID in {path} instead")
        descriptor = _claimed(folder)
    try:
        yield
    finally:
        if os.name == "nt":  # Windows cannot remove open files
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
        else:
            # Remove the name first, so that processes which open it from now on create a new file.
            if _is_still(path, descriptor):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path) -> int:
    """Open and lock the file; returns the descriptor. Raises _Busy, _NoLocks, OSError."""
    for _ in range(ATTEMPTS):
        descriptor = _opened(path, os.O_CREAT)
        try:
            _lock(descriptor)
            if _is_still(path, descriptor):
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the last owner removed the file meanwhile: retry with the new one
    raise _Busy


def _claimed(folder: Path) -> int:
    """Claim the folder by creating a file, for file systems without locks; returns the descriptor."""
    path = folder / NAME
    for _ in range(ATTEMPTS):
        try:
            descriptor = _opened(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            owner = _owner(path)
            if owner and not _has_ended(owner):
                raise FolderInUse(f"{_busy(folder, owner)}; if it has ended, remove {path}") from None
            path.unlink(missing_ok=True)
            continue
        _sign(descriptor)
        return descriptor
    raise FolderInUse(_busy(folder, _owner(path)))


def _opened(path: Path, flags: int) -> int:
    flags |= os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link; remove it") from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(descriptor)
        raise UserError(f"{path} is not a regular file, or has another hard link; remove it")
    return descriptor


def _lock(descriptor: int) -> None:
    try:
        if os.name == "nt":
            import msvcrt

            os.lseek(descriptor, _OFFSET, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise (_NoLocks if error.errno in _NO_LOCKS else _Busy) from None


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` still refers to the opened file."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    owner = {"pid": os.getpid(), "host": platform.node(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(owner).encode())


def _owner(path: Path) -> dict[str, Any]:
    """Read the owner recorded in the lock file; empty if there is none yet or it is unreadable."""
    try:
        found = json.loads(path.read_bytes()[:4096])
        return {"pid": int(found["pid"]), "host": str(found["host"]), "since": str(found["since"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _busy(folder: Path, owner: dict[str, Any]) -> str:
    who = _in_words(owner)
    since = f" (since {owner['since']})" if owner else ""
    return (
        f"{folder} is in use: {who} is writing to it{since}; wait for it, end it, or choose another folder with --out"
    )


def _in_words(owner: dict[str, Any]) -> str:
    who = f"process {owner['pid']}" if owner else "another process"
    return f"{who} on {owner['host']}" if owner and owner["host"] != platform.node() else who


def _has_ended(owner: dict[str, Any]) -> bool:
    if os.name == "nt" or owner["host"] != platform.node():
        return False  # unknown
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
