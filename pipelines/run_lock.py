"""One process at a time writes to a run's folder: a lock that ends with its owner, however that ends."""

from __future__ import annotations

import errno
import json
import os
import platform
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .errors import UserError

NAME = ".lock"
ATTEMPTS = 20
_OFFSET = 1 << 30
"""Windows locks bytes, and nobody else can read them: one far behind what the file holds."""
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


class _Busy(Exception):
    """Somebody else holds it."""


class _NoLocks(Exception):
    """This file system knows no locks."""


@contextmanager
def owned(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Own an existing folder. Raises UserError, naming the process, if another one does; OSError if it is read-only.

    The system takes the lock back from a process that ends, so what a killed one has left behind stops nobody. Where
    the file system knows no locks the file with the number of the process stands for one, and `say` is told.
    """
    path = folder / NAME
    try:
        descriptor = _locked(path)
    except _Busy:
        raise UserError(_busy(folder, _owner(path))) from None
    except _NoLocks:
        say(f"no locks on this file system: {path} with the number of this process stands for one")
        descriptor = _claimed(folder)
    try:
        yield
    finally:
        if os.name == "nt":  # removes no open file
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
        else:
            # The name goes first: whoever opens it from now on makes a new file.
            if _is_still(path, descriptor):
                path.unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path) -> int:
    """A descriptor that holds the lock. Raises _Busy, _NoLocks, OSError."""
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
        os.close(descriptor)  # its last owner removed the name in between: once more, with the new file
    raise _Busy


def _claimed(folder: Path) -> int:
    """The same by the file's mere existence, for file systems without locks."""
    path = folder / NAME
    for _ in range(ATTEMPTS):
        try:
            descriptor = _opened(path, os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            owner = _owner(path)
            if owner and not _has_ended(owner):
                raise UserError(f"{_busy(folder, owner)}; if it has ended, remove {path}") from None
            path.unlink(missing_ok=True)
            continue
        _sign(descriptor)
        return descriptor
    raise UserError(_busy(folder, _owner(path)))


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
        raise UserError(f"{path} is no ordinary file, or has a second name elsewhere; remove it")
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
    """Whether `path` is the name of what was opened."""
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
    """What the file says; empty if it says nothing, yet or at all."""
    try:
        found = json.loads(path.read_bytes()[:4096])
        return {"pid": int(found["pid"]), "host": str(found["host"]), "since": str(found["since"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _busy(folder: Path, owner: dict[str, Any]) -> str:
    who = f"process {owner['pid']}" if owner else "another process"
    if owner and owner["host"] != platform.node():
        who += f" on {owner['host']}"
    since = f" since {owner['since']}" if owner else ""
    return f"{folder} is in use: {who} writes to it{since}; wait for it, end it, or choose another folder with --out"


def _has_ended(owner: dict[str, Any]) -> bool:
    if os.name == "nt" or owner["host"] != platform.node():
        return False  # not known
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
