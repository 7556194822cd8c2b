"""The program's log on the terminal: progress on standard output, warnings and errors on standard error."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from .progress import PROGRAM, Progress, ProgressBar, bar_for_output
from .streams import complain, put


class _Terminal(logging.Handler):
    """Logging handler that prints messages without a prefix, and progress as a bar if there is one."""

    def __init__(self, bar: ProgressBar | None) -> None:
        super().__init__()
        self.bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        progress = getattr(record, "progress", None)
        if self.bar is not None and isinstance(progress, Progress):
            self.bar.show(progress)
            return
        with self.bar.hidden() if self.bar is not None else nullcontext():
            (complain if record.levelno >= logging.WARNING else put)(record.getMessage())


@contextmanager
def console(progress: str | None = PROGRAM, *, verbose: bool = False) -> Iterator[None]:
    """Print the log inside the `with` block: warnings of all modules, and the progress of the logger named
    `progress`, with its details if `verbose`.
    """
    bar = bar_for_output()
    handler, wanted = _Terminal(bar), {PROGRAM: logging.WARNING}
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
        if bar is not None:
            bar.close()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
