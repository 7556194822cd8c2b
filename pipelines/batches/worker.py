"""A worker of a batch: makes one run after another and keeps its prior loaded in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from steindreamer.distill import Prior

from ..command import error_line
from ..config.plugins import load_plugins
from ..config.run_config import SCHEMA, RunConfig
from ..errors import Interrupted, Paused, UserError
from ..foreign_code import culprit
from ..optimization.stage import Stage
from ..runs.checkpoint_record import newest_record
from ..runs.folder import is_empty
from ..runs.lock import FolderInUse
from ..runs.pipeline import load_prior
from ..runs.runner import generate
from ..runs.watching import Watch, Wish
from .judging import Judge
from .races import Candidate, Race, rounds_of
from .records import audit_of, summary_of, write_audit
from .rows import Row
from .settings import BatchSettings, Configurations, folder_name, race_path

logger = logging.getLogger(__name__)

Status: TypeAlias = Literal["finished", "failed", "in use", "stopped"]
"""`in use`: another process is making this run; `stopped`: its state is saved, as was asked for."""


@dataclass(frozen=True)
class Outcome:
    """The end of a row's run."""

    status: Status
    message: str = ""
    """Reason on one line, unless the run is finished."""


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
            self._make(row)
            return Outcome("finished")
        except FolderInUse as error:
            return Outcome("in use", error_line(error))
        except Paused as stop:
            return Outcome("stopped", str(stop))
        except Interrupted:  # a signal
            raise
        except SystemExit as stop:
            return Outcome("failed", f"{culprit(stop) or 'a component'} called sys.exit({stop.code!r}) during the run")
        except Exception as error:
            return Outcome("failed", error_line(error))

    def _make(self, row: Row) -> None:
        """Make the run or the race of a row."""
        configs = self._configurations.candidates(row)
        if len(configs) == 1:
            self._complete(configs[0])
        else:
            self._race(configs)

    def _complete(self, config: RunConfig) -> dict[str, Any]:
        """Take a run to its end and audit it; returns the audit."""
        folder = self.runs / folder_name(config)
        if summary_of(folder) is None:
            self._generate(config, lambda stage: Wish.STOP if self._stopping() else None)
        found = audit_of(folder)
        if found is None:
            write_audit(folder)
            found = audit_of(folder)
        assert found is not None, "it was written just now"
        return found

    def _race(self, configs: Sequence[RunConfig]) -> None:
        """Hold the race of several seeds."""
        by_seed = {config.seed: config for config in configs}
        candidates = [Candidate(seed, folder_name(config)) for seed, config in by_seed.items()]
        path = race_path(self.runs.parent, candidates[0].folder, len(configs))
        path.parent.mkdir(exist_ok=True)
        steps = sum(stage.steps for stage in configs[0].active_stages().values())
        judge = Judge(configs[0])
        race = Race(path, configs[0].prompt, candidates, rounds_of(steps, len(configs)))
        winner = race.hold(
            lambda candidate, until: self._judged(by_seed[candidate.seed], until, judge),
            lambda candidate: self._complete(by_seed[candidate.seed]),
        )
        logger.info(f"'{configs[0].prompt}': seed {winner.seed} is the best of {len(configs)}, see {path}")

    def _judged(self, config: RunConfig, until: int, judge: Judge) -> dict[str, Any]:
        """Take a run to this number of steps and save it there; returns its scores."""
        scores: dict[str, Any] = {}

        def watch(stage: Stage) -> Wish | None:
            if stage.total >= until:
                judgement = judge(stage.representation)
                scores.update(steps=stage.total, score=judgement.score, **asdict(judgement))
                return Wish.STOP
            return Wish.STOP if self._stopping() else None

        try:
            self._generate(config, watch)
        except Paused:
            if not scores:
                raise
        record = newest_record(self.runs / folder_name(config) / "checkpoints")
        return {**scores, "prior_calls": record.get("prior_calls")}

    def _generate(self, config: RunConfig, watch: Watch) -> None:
        """Start or resume a run."""
        folder = self.runs / folder_name(config)
        generate(config, folder, resume=not is_empty(folder), watch=watch, prior=self._prior(config))

    def _prior(self, config: RunConfig) -> Prior:
        """The prior of a run: the one of the run before, if its settings are the same."""
        key = (config.names["prior"], config.prior)
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # frees its memory first
            self._loaded = key, load_prior(config)
        return self._loaded[1]
