"""Child processes that end together with their parent, even if the parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

GRACE = 10.0
"""Time in seconds for a stopped run to finish and save the current step."""

FOLLOW = "--end-with-parent"
"""Option of a child process that makes it end when its standard input closes, that is, when its parent ends."""


class Children:
    """The running child processes."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Run a module until it ends; returns the exit status and the last line of standard error."""
        # -P: do not import from the current folder. A separate process group receives Ctrl-C from here only, so that
        # a child does not count it as the second one.
        command = [sys.executable, "-P", "-m", module, *arguments, FOLLOW]
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                process_group=0 if os.name == "posix" else None,
            )
            self._processes.add(process)
            try:
                status = process.wait()
            finally:
                self._processes.discard(process)
                _close(process)
            errors.seek(0)
            lines = errors.read().decode("utf-8", "replace").strip().splitlines()
        return status, lines[-1] if lines else ""

    def end(self) -> None:
        """Ask all children to save and end; returns when they have ended."""
        processes = list(self._processes)
        for process in processes:
            _close(process)
        deadline = time.monotonic() + GRACE + 5
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
                continue
            process.kill()


def follow_parent(arguments: Sequence[str]) -> None:
    """End this process, as SIGTERM does, when the parent that started it with `FOLLOW` ends."""
    if FOLLOW in arguments:
        threading.Thread(target=_wait_and_end, name="parent", daemon=True).start()


def _wait_and_end() -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    signal.raise_signal(signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(128 + signal.SIGTERM)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
