"""Exceptions that end a run early. A UserError is user-fixable: its message is shown without a traceback."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from .plain_text import on_one_line

MAX_MESSAGE = 2000
"""Maximum length of a one-line message, in characters; longer ones are truncated."""


class UserError(ValueError):
    """A user-fixable error. The message says what was given, what is accepted and what to do, always on one line."""

    def __init__(self, message: object) -> None:
        super().__init__(on_one_line(str(message)))


class SettingsError(UserError):
    """A setting that is unknown, of the wrong type or out of range; raised before any work is done."""


class UnknownNameError(SettingsError):
    """A component name that is not registered; a plugin may register it."""


class DamagedCheckpoint(UserError):
    """A damaged checkpoint, for which an older one may be used. The message begins with "is" or "does"."""


class Interrupted(Exception):
    """A run ended by Ctrl-C or another signal; the state was saved after `step` steps."""

    def __init__(self, folder: Path, step: int, number: int = signal.SIGINT) -> None:
        """Record where the run stopped.

        Args:
            folder: the run's folder.
            step: steps that are saved.
            number: the signal.
        """
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"interrupted{by}; step {step} is saved, continue with --resume --out {folder}")
        self.signal = number


class Paused(Interrupted):
    """A run ended by its watch, not by a signal; the state was saved."""


def nearest(word: str, known: Iterable[str]) -> str:
    """The text " (did you mean ...?)" with the closest known word; empty if none is close."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def in_one_line(text: object) -> str:
    """A message as one printable line of at most `MAX_MESSAGE` characters."""
    plain = on_one_line(re.sub(r"\s*[\r\n]\s*", " ", str(text).strip()))
    return plain if len(plain) <= MAX_MESSAGE else f"{plain[: MAX_MESSAGE - 3]}..."
