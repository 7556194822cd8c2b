"""Notices what takes far too long, and writes down where it stands; the run goes on."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

FILE_NAME = "watchdog.txt"


class Watchdog:
    """Wants to hear of every step; otherwise the stacks of all threads go to `folder`/watchdog.txt, again and again.

    They are written by a thread of faulthandler's that needs nothing of Python's: a call that never returns from C is
    seen too. That goes for one watchdog at a time. Where there is SIGUSR1, it makes the stacks be written at once.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        """`seconds` that one step may take; 0: no limit. Raises OSError if the file cannot be written."""
        self.path, self.seconds = folder / FILE_NAME, seconds
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        self._file: IO[bytes] = open(os.open(self.path, flags, 0o666), "ab", buffering=0)
        self._what, self._deadline, self._ended = "", float("inf"), threading.Event()
        self._signal = _free_signal()
        if self._signal is not None:
            faulthandler.register(self._signal, self._file, all_threads=True)
        if seconds:
            threading.Thread(target=self._tell, name="watchdog", daemon=True).start()

    def feed(self, what: str) -> None:
        """`what` begins now, such as "step 30"; what was under way has ended."""
        if self.seconds:
            self._what, self._deadline = what, time.monotonic() + self.seconds
            faulthandler.dump_traceback_later(self.seconds, repeat=True, file=self._file)

    def end(self) -> None:
        """Watch no longer; the file goes if nothing was written."""
        self._ended.set()
        if self.seconds:
            faulthandler.cancel_dump_traceback_later()
        if self._signal is not None:
            faulthandler.unregister(self._signal)
        empty = not os.fstat(self._file.fileno()).st_size
        self._file.close()
        if empty:
            with suppress(OSError):
                self.path.unlink()

    def _tell(self) -> None:
        while not self._ended.wait(min(1.0, self.seconds / 4)):
            if time.monotonic() > self._deadline:
                self._deadline = float("inf")  # once for each
                with suppress(OSError, ValueError):
                    print(
                        f"{self._what} takes more than {self.seconds:g} s; where it stands: {self.path}; it goes on",
                        file=sys.stderr,
                    )


@contextmanager
def watched(folder: Path, seconds: float) -> Iterator[Watchdog]:
    """A watchdog that ends with the block."""
    watchdog = Watchdog(folder, seconds)
    try:
        yield watchdog
    finally:
        watchdog.end()


def _free_signal() -> int | None:
    """SIGUSR1, if this system has it and nobody else waits for it."""
    number = getattr(signal, "SIGUSR1", None)
    is_free = number is not None and hasattr(faulthandler, "register") and signal.getsignal(number) is signal.SIG_DFL
    return number if is_free else None
