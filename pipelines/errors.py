"""What ends a run early: a UserError is the user's to fix, its message is shown alone, without a traceback."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path

from .plain_text import on_one_line

MAX_MESSAGE = 2000
"""Characters of a message that is told in one line: what a user gave may be long."""


class UserError(ValueError):
    """What was given, what is accepted, and what to do: always on one line, whatever text it quotes."""

    def __init__(self, message: object) -> None:
        super().__init__(on_one_line(str(message)))


class SettingsError(UserError):
    """A setting that is unknown, of the wrong kind or out of range: the call was wrong, nothing has been done."""


class UnknownNameError(SettingsError):
    """A component that is not registered; a plugin might do that."""


class DamagedCheckpoint(UserError):
    """What is wrong with a checkpoint that an older one may stand in for; begins with "is" or "does"."""


class Interrupted(Exception):
    """Ctrl-C, or another signal that ends a run: the state was saved after `step` steps."""

    def __init__(self, folder: Path, step: int, number: int = signal.SIGINT) -> None:
        """`number` of the signal."""
        by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
        super().__init__(f"interrupted{by}; step {step} is saved, continue with --resume --out {folder}")
        self.signal = number


def nearest(word: str, known: Iterable[str]) -> str:
    """' (did you mean ...?)', or nothing if no known word is near."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""


def in_one_line(text: object) -> str:
    """A message as one line of what a terminal can show, at most `MAX_MESSAGE` characters of it."""
    plain = on_one_line(re.sub(r"\s*[\r\n]\s*", " ", str(text).strip()))
    return plain if len(plain) <= MAX_MESSAGE else f"{plain[: MAX_MESSAGE - 3]}..."
