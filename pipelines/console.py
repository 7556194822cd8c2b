"""The program's log on the terminal: progress on standard output, warnings and errors on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from .streams import complain, put

PROGRAM = "steindreamer"
"""Name of the root logger of this package."""


class _Terminal(logging.Handler):
    """Logging handler that prints messages without a prefix."""

    def emit(self, record: logging.LogRecord) -> None:
        (complain if record.levelno >= logging.WARNING else put)(record.getMessage())


@contextmanager
def console(progress: str | None = PROGRAM, *, verbose: bool = False) -> Iterator[None]:
    """Print the log inside the `with` block: warnings of all modules, and the progress of the logger named
    `progress`, with its details if `verbose`.
    """
    handler, wanted = _Terminal(), {PROGRAM: logging.WARNING}
    if progress is not None:
        wanted[progress] = logging.DEBUG if verbose else logging.INFO
    levels = {name: logging.getLogger(name).level for name in wanted}
    logging.getLogger(PROGRAM).addHandler(handler)
    try:
        for name, level in wanted.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        logging.getLogger(PROGRAM).removeHandler(handler)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
