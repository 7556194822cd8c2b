"""Shared code of the command lines: option parsing, one-line error messages and exit statuses."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import steindreamer.passive_waiting  # noqa: F401 before torch is imported

from .console import PROGRAM, console
from .errors import Interrupted, SettingsError, UserError, in_one_line
from .foreign_code import culprit
from .settings.setting_text import Refused, whole
from .streams import complain, output_lost, put

DONE, ERROR, USAGE = 0, 1, 2
"""Exit statuses. A process that is stopped by a signal exits with 128 + the signal's number."""

PLUGIN_HELP = "Python file that registers custom components, run first; may be repeated"


class Parser(argparse.ArgumentParser):
    """Argument parser that reports a usage error in one line and tolerates a closed output pipe."""

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
    """The `type` of an option that takes an integer. Underscores and digits of other scripts are rejected, as in
    settings.

    Raises argparse.ArgumentTypeError.
    """
    try:
        return whole(text)
    except Refused as error:
        raise argparse.ArgumentTypeError(f"the value is {text!r}{error}") from None


def exit_status(
    work: Callable[[], object],
    *,
    debug: bool,
    stopped: str,
    progress: str | None = PROGRAM,
    verbose: bool = False,
) -> int:
    """Run `work` and report an error in one line on standard error.

    Returns 0 on success, 1 for an error, 2 for a usage error or invalid settings, and 128 + the signal's number for a
    signal. The log is printed while `work` runs, see `console`.

    Args:
        work: the function to run.
        debug: let exceptions propagate.
        stopped: the message after Ctrl-C if the exception carries none.
        progress: name of the logger whose progress is printed.
        verbose: print its details too.
    """
    try:
        with console(progress, verbose=verbose):
            work()
    except (Interrupted, KeyboardInterrupt) as stop:
        complain(str(stop) or stopped)
        return 128 + getattr(stop, "signal", signal.SIGINT)
    except SystemExit as stop:  # raised by a component: the program itself ends by returning
        if debug:
            raise
        who = culprit(stop) or "a component"
        complain(f"error: {who} called sys.exit({stop.code!r}) during the run; it must raise an exception instead")
        return ERROR
    except Exception as error:
        if debug:
            raise
        complain(f"error: {error_line(error)}")
        return USAGE if isinstance(error, SettingsError) else ERROR
    lost = output_lost()
    if lost:
        complain(f"error: cannot write to standard output: {lost}")
        return ERROR
    return DONE


def error_line(error: Exception) -> str:
    """The message of an error on one line. The traceback of an unexpected one is kept in a file, which it names."""
    if isinstance(error, UserError):
        return in_one_line(error)
    if memory := _out_of_memory(error):
        return memory
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename is not None else ""
        return in_one_line(f"cannot read or write {what}{error.strerror or error}")
    name = f"{type(error).__name__}: {in_one_line(error)}"
    message = f"{who} raised {name}" if (who := culprit(error)) else f"this is a bug in steindreamer: {name}"
    return f"{message} ({_keep_traceback(error)})"


def _out_of_memory(error: Exception) -> str:
    """Advice on running out of memory; empty for any other error."""
    if isinstance(error, MemoryError) or "torch" in sys.modules:  # without torch only MemoryError can occur
        from .optimization.out_of_memory import ADVICE, is_out_of_memory

        return ADVICE if is_out_of_memory(error) else ""
    return ""


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to a temporary file and return a note with its path, so that a late failure can be
    reported.
    """
    text = "".join(traceback.format_exception(error))
    try:
        descriptor, path = tempfile.mkstemp(prefix="steindreamer-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return "--debug shows the traceback"
    return f"traceback: {path}"
