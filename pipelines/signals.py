"""Signals that end a run: Ctrl-C, and what schedulers, containers and closed terminals send."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
"""Those that this system has are handled."""


class Stopped(KeyboardInterrupt):
    """A signal ended the run at once; its message says how to go on."""

    def __init__(self, number: int, advice: str) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}; {advice}")
        self.signal = number


class Signals:
    """What has arrived while it had to wait."""

    def __init__(self, advice: Callable[[], str]) -> None:
        self.number = 0
        """The signal that wants the run to end; 0: none."""
        self._advice = advice
        self._waiting = False

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Inside, the first signal only sets `number`, so that what is under way can be saved; a second one stops."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """See `wait`; outside it every signal raises Stopped."""
        if self._waiting and not self.number:
            self.number = number
            return
        raise Stopped(number, self._advice())


@contextmanager
def signals_handled(advice: Callable[[], str]) -> Iterator[Signals]:
    """Handle them meanwhile; `advice` says how to go on. Outside the main thread the caller's own handlers stay."""
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
            # None: it was set by something other than Python, and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _is_ignored(name: str, number: int) -> bool:
    """Whether the run must outlive a closed terminal, as nohup asks. Shells also ignore SIGINT for what they start in
    the background; whoever sends it to such a run means it."""
    return name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN
