"""Progress bars of a run: one per stage, in a terminal or a notebook. Elsewhere the log has lines instead."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from .streams import put

PROGRAM = "steindreamer"
"""Name of the root logger of this package."""


@dataclass(frozen=True)
class Progress:
    """The state of a run after a step; attribute `progress` of its log record."""

    stage: str
    """Place and name of the stage, such as "stage 2 of 3, geometry"."""
    step: int
    """Steps of the stage so far."""
    steps: int
    """Steps of the stage."""
    left: str
    """Time left of the run, minutes and seconds."""


class ProgressBar:
    """The bar of the present stage, by tqdm."""

    def __init__(self, bar_type: Any) -> None:
        """Create no bar yet.

        Args:
            bar_type: the class `tqdm` of tqdm's module for a terminal or for notebooks.
        """
        self._type = bar_type
        self._bar: Any = None
        self._stage = ""

    def show(self, progress: Progress) -> None:
        """Move the bar of the stage, which begins below the last one."""
        if progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
            bar_format = "{desc}: step {n_fmt} of {total_fmt} |{bar:30}| {unit}"
            self._bar = self._type(
                total=progress.steps, desc=progress.stage, bar_format=bar_format, mininterval=0, file=sys.stdout
            )
        self._bar.unit = f"{progress.left} left"
        self._bar.update(progress.step - self._bar.n)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Clear the bar's line within the context, for other lines."""
        if self._bar is None:
            yield
            return
        self._bar.clear()
        yield
        self._bar.refresh()


class _Bars(logging.Handler):
    """Logging handler that shows progress alone."""

    def __init__(self, bar: ProgressBar | None) -> None:
        super().__init__()
        self._progress_bar = bar

    def emit(self, record: logging.LogRecord) -> None:
        progress = getattr(record, "progress", None)
        if not isinstance(progress, Progress):
            return
        if self._progress_bar is None:
            put(record.getMessage())
        else:
            self._progress_bar.show(progress)


def bar_for_output(*, notebooks: bool = False) -> ProgressBar | None:
    """A progress bar for standard output; None where it is neither a terminal nor, with `notebooks`, a notebook."""
    if sys.stdout is not None and sys.stdout.isatty():
        from tqdm import tqdm

        return ProgressBar(tqdm)
    if notebooks and "ipykernel" in sys.modules:
        from tqdm.auto import tqdm

        return ProgressBar(tqdm)
    return None


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show the progress of runs within the context: bars in a terminal or a notebook, lines elsewhere."""
    bar, log = bar_for_output(notebooks=True), logging.getLogger(PROGRAM)
    handler, level = _Bars(bar), log.level
    log.addHandler(handler)
    log.setLevel(min(level, logging.INFO) if level else logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        if bar is not None:
            bar.close()
