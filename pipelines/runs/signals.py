"""Handling of signals that end a run: Ctrl-C, and those sent by schedulers, containers and closed terminals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Names of the handled signals; those that the platform lacks are ignored."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the run immediately; the message says how to resume."""

    def __init__(self, number: int, advice: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {advice}")
        self.signal = number


class Signals:
    """Signals received while handling was deferred."""

    def __init__(self, advice: Callable[[], str]) -> None:
        self.number = 0
        """Number of the signal that requests the end of the run; 0 if none."""
        self._advice = advice
        self._waiting = False

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Defer the first signal inside the context: it only sets `number`, so that the current work can be saved.

        A second signal raises Stopped.
        """
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: raises Stopped, except inside `wait`."""
        if self._waiting and not self.number:
            self.number = number
            return
        raise Stopped(number, self._advice())


@contextmanager
def signals_handled(advice: Callable[[], str]) -> Iterator[Signals]:
    """Install the signal handlers for the duration of the context.

    Outside the main thread the existing handlers are kept.

    Args:
        advice: Returns instructions to resume the run.
    """
    signals, previous = Signals(advice), dict[int, Any]()
    try:
        for name in NAMES:
            number = getattr(signal, name, None)
            if number is None or _is_ignored(name, number):
                continue
            try:
                previous[number] = signal.signal(number, signals.handle)
            except ValueError:  # not the main thread
                break
        yield signals
    finally:
        for number, handler in previous.items():
            # None: the handler was not installed from Python and cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _is_ignored(name: str, number: int) -> bool:
    """Whether a signal must stay ignored, as nohup requests for SIGHUP.

    Shells also ignore SIGINT in background processes; a SIGINT sent to such a run is still handled.
    """
    return name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
