"""Watchdog that writes stack traces when a step takes too long; the run continues."""

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
    """Expects a call of `feed` at every step; otherwise it repeatedly writes all stack traces to `folder`/watchdog.txt.

    The traces are written by a thread of faulthandler that does not need the interpreter, so calls that never return
    from C code are covered. Only one watchdog can be active at a time. If the platform has SIGUSR1, the signal writes
    the traces immediately.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        """Start the watchdog.

        Args:
            folder: Folder of the run.
            seconds: Time limit of one step; 0 means no limit.

        Raises:
            OSError: The file cannot be written.
        """
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
        """Restart the timer for the operation `what`, such as "step 30"."""
        if self.seconds:
            self._what, self._deadline = what, time.monotonic() + self.seconds
            faulthandler.dump_traceback_later(self.seconds, repeat=True, file=self._file)

    def end(self) -> None:
        """Stop watching; the file is removed if it is empty."""
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
                self._deadline = float("inf")  # report each step once
                with suppress(OSError, ValueError):
                    print(
                        f"{self._what} is taking more than {self.seconds:g} s; stack traces: {self.path}; the run "
                        "continues",
                        file=sys.stderr,
                    )


@contextmanager
def watched(folder: Path, seconds: float) -> Iterator[Watchdog]:
    """Watchdog that ends with the context."""
    watchdog = Watchdog(folder, seconds)
    try:
        yield watchdog
    finally:
        watchdog.end()


def _free_signal() -> int | None:
    """Return SIGUSR1 if the platform has it and it has no handler, else None."""
    number = getattr(signal, "SIGUSR1", None)
    is_free = number is not None and hasattr(faulthandler, "register") and signal.getsignal(number) is signal.SIG_DFL
    return number if is_free else None
