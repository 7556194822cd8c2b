"""A batch of runs: its rows are checked, made by an engine and collected. The run folders say what is finished."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..console import PROGRAM
from ..errors import Interrupted, UserError
from ..files import append_text, read_regular, write_atomically
from ..runs.lock import NAME as LOCK
from ..runs.lock import owned
from ..runs.manifest import is_leftover
from ..runs.signals import Stopped, signals_handled
from ..settings.schema import Schema
from .gallery import write_gallery
from .races import Candidate, winner_of
from .records import is_finished, json_lines, record_of
from .rows import Row, read_rows
from .settings import BatchSettings, Configurations, check_row, folder_name, race_path
from .shard import Shard
from .worker import Outcome

logger = logging.getLogger(__name__)

MARK = "batch.json"
"""File that marks the folder of a batch."""
_CONTINUE = "run the same command again to continue"


class Engine(Protocol):
    """Makes the runs of rows."""

    @property
    def slots(self) -> int:
        """Number of runs at the same time."""
        ...

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Outcome]]:
        """Make the runs; yields each row with its outcome as it ends."""
        ...


@dataclass(frozen=True)
class Job:
    """A row that can be run."""

    row: Row
    candidates: tuple[Candidate, ...]
    """The run of each seed; a single one without a race."""

    def result(self, out: Path) -> Candidate | None:
        """The finished run of the row, in the folder of a batch; None if there is none yet."""
        first, count = self.candidates[0], len(self.candidates)
        chosen = first if count == 1 else winner_of(race_path(out, first.folder, count))
        return chosen if chosen is not None and is_finished(out / "runs" / chosen.folder) else None


@dataclass(frozen=True)
class Failure:
    """A row that was refused or whose run failed: a line of failed.jsonl."""

    line: int
    prompt: str
    message: str

    def to_plain(self) -> dict[str, Any]:
        """The failure as JSON values."""
        return {"line": self.line, "prompt": self.prompt, "message": self.message}


@dataclass(frozen=True)
class Tally:
    """Numbers of rows at the end of a batch."""

    rows: int
    finished: int
    failed: int


def check_rows(
    rows: Iterable[Row], configurations: Configurations, check: Callable[[Any], None] = check_row
) -> tuple[list[Job], list[Failure]]:
    """Check all rows before any is run; returns those that can be run, and the others.

    A row that repeats an earlier one is a failure.
    """
    jobs, failures = list[Job](), list[Failure]()
    taken: dict[str, int] = {}
    for row in rows:
        try:
            configs = configurations.candidates(row)
            check(configs[0])
            candidates = tuple(Candidate(config.seed, folder_name(config)) for config in configs)
            if again := [each for each in candidates if each.folder in taken]:
                raise UserError(
                    f"the same prompt, settings and seed ({again[0].seed}) as in line {taken[again[0].folder]}; remove "
                    f"the row or raise its seed by {len(configs)}"
                )
            taken.update((each.folder, row.line) for each in candidates)
            jobs.append(Job(row, candidates))
        except UserError as error:
            failures.append(Failure(row.line, row.prompt, str(error)))
    return jobs, failures


def run_batch(
    prompts: Path,
    out: Path,
    settings: BatchSettings,
    schema: Schema,
    engine: Callable[[], Engine] | None,
    shard: Shard | None = None,
) -> Tally:
    """Make the runs of all rows that are not finished, and collect the results.

    Args:
        prompts: File of the rows.
        out: Folder of the batch, which is created.
        settings: Settings of all rows.
        schema: Schema of the settings.
        engine: Starts the engine, if there is anything to run; None: nothing is run, only collected.
        shard: Run only these rows and leave the collection to a later call; None: all.

    Raises:
        UserError: The file or the folder cannot be used. A row that fails is an entry of failed.jsonl instead.
        Stopped: A signal ended the batch; the present run is saved.
    """
    rows = read_rows(prompts)
    rows = rows if shard is None else shard.of(rows)
    jobs, failures = check_rows(rows, Configurations(settings, schema))
    with ExitStack() as held:
        try:
            open_folder(out)
            if shard is None:
                held.enter_context(owned(out))
            held.enter_context(_log_file(out / _name("batch", shard, "log")))
            session = _Session(out, jobs, failures, shard)
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None
        held.enter_context(signals_handled(lambda: _CONTINUE))
        if engine is not None:
            session.run(engine)
        else:
            session.take_failures_of_shards()
        if shard is None:
            write_gallery(out, session.records(), [each.to_plain() for each in session.failures])
            logger.info(f"{out / 'index.html'}")
    return Tally(len(rows), len(session.finished), len(session.failures))


def open_folder(out: Path) -> None:
    """Create or recognize the folder of a batch. Raises UserError for one with other files, and OSError."""
    mark = out / MARK
    if out.exists() and not out.is_dir():
        raise UserError(f"--out is {out}, which is a file; give a folder")
    if not mark.is_file():
        out.mkdir(parents=True, exist_ok=True)
        other = any(path.name not in (LOCK, MARK) and not is_leftover(path.name) for path in out.iterdir())
        if other and not mark.is_file():  # another shard may have written it meanwhile
            raise UserError(f"{out} is not empty and holds no batch (no {MARK}); choose another folder with --out")
        write_atomically(mark, json.dumps({"format": 1}).encode())
    (out / "runs").mkdir(exist_ok=True)


class _Session:
    """Rows of this call: what is finished, what failed, and the files that say so."""

    def __init__(self, out: Path, jobs: Sequence[Job], failures: Sequence[Failure], shard: Shard | None) -> None:
        self.out, self.jobs = out, jobs
        self.failures = list(failures)
        self.finished: dict[int, Candidate] = {}
        """The finished runs by line of the file."""
        self._by_line = {job.row.line: job for job in jobs}
        for job in jobs:
            if (result := job.result(out)) is not None:
                self.finished[job.row.line] = result
        self._records, self._failed = (out / _name(name, shard, "jsonl") for name in ("batch", "failed"))
        self._count = len(jobs) + len(failures)
        self._start, self._ended = time.monotonic(), 0
        self._write()
        for failure in failures:
            logger.warning(f"line {failure.line}, '{failure.prompt}': {failure.message}")
        logger.info(f"{self._count} prompts: {len(self.finished)} finished already, {len(failures)} refused")

    def records(self) -> list[dict[str, Any]]:
        """The records of the finished rows, in the order of the file."""
        return [self._record(job) for job in self.jobs if job.row.line in self.finished]

    def run(self, start: Callable[[], Engine]) -> None:
        """Make the runs that are not finished. Raises Stopped after a signal."""
        waiting = [job.row for job in self.jobs if job.row.line not in self.finished]
        if not waiting:
            return
        engine = start()
        try:
            for row, outcome in engine.run(waiting):
                self._note(self._by_line[row.line], outcome)
                self._tell(engine.slots, len(waiting))
        except (Interrupted, Stopped) as stop:  # their messages are about the present run only
            raise Stopped(stop.signal, _CONTINUE) from stop
        finally:
            self._write()

    def take_failures_of_shards(self) -> None:
        """Add what the shards have noted about rows that are not finished."""
        known = {(failure.line, failure.prompt) for failure in self.failures}
        unfinished = {(job.row.line, job.row.prompt) for job in self.jobs if job.row.line not in self.finished}
        for path in sorted(self.out.glob("failed-*-of-*.jsonl")):
            for failure in _read_failures(path):
                if (failure.line, failure.prompt) in unfinished - known:
                    known.add((failure.line, failure.prompt))
                    self.failures.append(failure)
        self._write()

    def _note(self, job: Job, outcome: Outcome) -> None:
        """Record the end of a row's run."""
        self._ended += 1
        row = job.row
        result = job.result(self.out) if outcome.status == "finished" else None
        if result is not None:
            self.finished[row.line] = result
            record = self._record(job)
            append_text(self._records, json_lines([record]).decode())
            logger.info(f"line {row.line}, '{row.prompt}': {record['seconds']:.0f} s, {record['folder']}")
            return
        message = outcome.message or "its folder is gone from this machine; --out must be on a shared file system"
        failure = Failure(row.line, row.prompt, message)
        self.failures.append(failure)
        append_text(self._failed, json_lines([failure.to_plain()]).decode())
        logger.warning(f"line {failure.line}, '{failure.prompt}': {failure.message}")

    def _record(self, job: Job) -> dict[str, Any]:
        """The line of batch.jsonl of a finished row."""
        result = self.finished[job.row.line]
        folder = self.out / "runs" / result.folder
        return record_of(job.row.line, job.row.prompt, result.seed, folder, self.out)

    def _tell(self, slots: int, waiting: int) -> None:
        """Log the progress over all rows."""
        left = waiting - self._ended
        seconds = (time.monotonic() - self._start) / self._ended * left
        minutes, rest = divmod(round(seconds), 60)
        logger.info(
            f"{len(self.finished)} of {self._count} finished, {min(slots, left)} running, {len(self.failures)} failed, "
            f"{minutes}:{rest:02d} left"
        )

    def _write(self) -> None:
        """Write both files in the order of the rows."""
        self.failures.sort(key=lambda failure: failure.line)
        write_atomically(self._records, json_lines(self.records()))
        write_atomically(self._failed, json_lines(failure.to_plain() for failure in self.failures))


def _read_failures(path: Path) -> Iterator[Failure]:
    """The lines of a failed.jsonl; damaged ones, as of a killed process, are skipped."""
    for line in read_regular(path).decode("utf-8", "replace").splitlines():
        try:
            found = json.loads(line)
            yield Failure(int(found["line"]), str(found["prompt"]), str(found["message"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _name(stem: str, shard: Shard | None, ending: str) -> str:
    return f"{stem}.{ending}" if shard is None else f"{stem}-{shard.suffix}.{ending}"


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Append the log of the program to a file."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger(PROGRAM)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()
