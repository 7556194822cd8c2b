"""A worker of a batch: makes one run after another and keeps its prior loaded in between."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from steindreamer.distill import Prior

from ..command import error_line
from ..config.plugins import load_plugins
from ..config.run_config import SCHEMA, RunConfig
from ..errors import Interrupted, UserError
from ..foreign_code import culprit
from ..optimization.stage import Stage
from ..runs.folder import is_empty
from ..runs.lock import FolderInUse
from ..runs.pipeline import load_prior
from ..runs.runner import generate
from ..runs.watching import Wish
from .records import is_finished, summary_of, write_audit
from .rows import Row
from .settings import BatchSettings, Configurations, folder_name

logger = logging.getLogger(__name__)

Status: TypeAlias = Literal["finished", "failed", "in use", "stopped"]
"""`in use`: another process is making this run; `stopped`: its state is saved, as was asked for."""


@dataclass(frozen=True)
class Outcome:
    """The end of a row's run."""

    status: Status
    message: str = ""
    """Reason on one line, unless the run is finished."""
    name: str = ""
    """Name of the finished run's folder."""


class Worker:
    """Makes the runs of rows, one at a time."""

    def __init__(self, settings: BatchSettings, runs: Path, *, stopping: Callable[[], bool] = lambda: False) -> None:
        """Load the plugins. Raises UserError, also if the folder is not visible on this machine.

        Args:
            settings: Settings of all rows.
            runs: Folder of the run folders.
            stopping: Whether to save the state after the present step and end.
        """
        if not runs.is_dir():
            raise UserError(f"the worker does not see {runs}; --out must be on a file system that all machines share")
        load_plugins([Path(file) for file in settings.plugins])
        self.runs = runs
        self._configurations = Configurations(settings, SCHEMA)
        self._stopping = stopping
        self._loaded: tuple[Any, Prior] | None = None

    def work(self, row: Row) -> Outcome:
        """Make the run of a row, or finish an earlier one. Only signals raise an exception."""
        try:
            return Outcome("finished", name=self._made(row))
        except FolderInUse as error:
            return Outcome("in use", error_line(error))
        except Interrupted as stop:
            if not self._stopping():  # a signal
                raise
            return Outcome("stopped", str(stop))
        except SystemExit as stop:
            return Outcome("failed", f"{culprit(stop) or 'a component'} called sys.exit({stop.code!r}) during the run")
        except Exception as error:
            return Outcome("failed", error_line(error))

    def _made(self, row: Row) -> str:
        config = self._configurations.of(row)
        name = folder_name(config)
        folder = self.runs / name
        if is_finished(folder):
            return name
        if summary_of(folder) is None:
            resume = not is_empty(folder)
            generate(config, folder, resume=resume, watch=self._watch, prior=self._prior(config))
        write_audit(folder)
        return name

    def _watch(self, stage: Stage) -> Wish | None:
        del stage
        return Wish.STOP if self._stopping() else None

    def _prior(self, config: RunConfig) -> Prior:
        """The prior of a run: the one of the run before, if its settings are the same."""
        key = (config.names["prior"], config.prior)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees its memory first
            self._loaded = key, load_prior(config)
        return self._loaded[1]
