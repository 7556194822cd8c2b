"""What the command lines share: how they read options, print errors in one line, and end."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from .blame import culprit
from .errors import Interrupted, SettingsError, UserError, in_one_line
from .setting_types import read_as
from .streams import complain, output_lost, put
from .yaml_text import Given

DONE, ERROR, USAGE = 0, 1, 2
"""Exit statuses; one that was stopped by a signal ends with 128 + its number."""

PLUGIN_HELP = "run this file first, which registers components of your own; may be given again"


class Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line, and survives a reader that goes away."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"error: {in_one_line(message)}; see --help\n")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        if message:
            complain(message.rstrip("\n"))
        raise SystemExit(status)

    def print_help(self, file: Any = None) -> None:
        del file
        put(self.format_help(), end="")


def whole_number(text: str) -> int:
    """The type of an option that takes an integer, read as a setting is: no underscores, no digits of other scripts.

    Raises argparse.ArgumentTypeError.
    """
    try:
        return read_as(int, Given(text), "the value")
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def exit_status(work: Callable[[], object], *, debug: bool, stopped: str) -> int:
    """Do the work and tell in one line on standard error why it did not end well.

    Returns 0 for done, 1 for an error, 2 for a wrong call or wrong settings, 128 + its number for a signal. `stopped`
    is what to say after Ctrl-C where the work itself has nothing to say. With `debug`, exceptions get through.
    """
    try:
        work()
    except (Interrupted, KeyboardInterrupt) as stop:
        complain(str(stop) or stopped)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except SystemExit as stop:  # of a component: the program itself ends by returning
        if debug:
            raise
        who = culprit(stop) or "a component"
        complain(f"error: {who} called sys.exit({stop.code!r}) in the middle of the work; it must raise an error")
        return ERROR
    except Exception as error:
        if debug:
            raise
        complain(f"error: {_told(error)}")
        return USAGE if isinstance(error, SettingsError) else ERROR
    lost = output_lost()
    if lost:
        complain(f"error: standard output cannot be written: {lost}")
        return ERROR
    return DONE


def _told(error: Exception) -> str:
    if isinstance(error, UserError):
        return in_one_line(error)
    if memory := _out_of_memory(error):
        return memory
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename is not None else ""
        return in_one_line(f"cannot read or write {what}{error.strerror or error}")
    name = f"{type(error).__name__}: {in_one_line(error)}"
    told = f"{who} raised {name}" if (who := culprit(error)) else f"this is a fault of the program: {name}"
    return f"{told} ({_keep_traceback(error)})"


def _out_of_memory(error: Exception) -> str:
    """What to do about it, if that was it."""
    if isinstance(error, MemoryError) or "torch" in sys.modules:  # before that no other kind can have come
        from .out_of_memory import ADVICE, is_out_of_memory

        return ADVICE if is_out_of_memory(error) else ""
    return ""


def _keep_traceback(error: Exception) -> str:
    """Where the traceback was written to: what failed after hours need not be repeated to be reported."""
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="steindreamer-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "--debug shows the traceback"
    return f"traceback: {path}"
