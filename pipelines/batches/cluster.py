"""The engine on Ray Core: one actor per simultaneous run, on this machine or on the machines of a cluster.

The run folders are the only state. A run whose worker dies is made again, which resumes it; a run that fails with an
error is not.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..command import error_line
from ..errors import SettingsError, UserError
from .rows import Row
from .settings import BatchSettings
from .worker import Outcome, Worker

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Number of times that a run is made if its worker dies."""
GRACE = 120.0
"""Seconds that running workers get to save their state when the batch is stopped."""
OBJECT_STORE = 100 << 20
"""Bytes of shared memory that Ray may use; only settings and messages pass through it."""


@dataclass(frozen=True)
class Resources:
    """Resources of one run, and the number of runs at the same time."""

    cpus: int = 1
    gpus: float = 0.0
    workers: int | None = None
    """Number of simultaneous runs; None: as many as fit."""

    def __post_init__(self) -> None:
        if not 1 <= self.cpus <= 4096:
            raise SettingsError(f"--cpus-per-run is {self.cpus}; 1 to 4096 is accepted")
        if not 0 <= self.gpus <= 64 or (self.gpus > 1 and self.gpus % 1):
            raise SettingsError(f"--gpus-per-run is {self.gpus:g}; 0 to 1, or a whole number of GPUs, is accepted")

    def slots(self, nodes: Sequence[dict[str, float]]) -> int:
        """The number of simultaneous runs on machines with these resources. Raises SettingsError if they do not fit."""
        cpus, gpus = ([node.get(kind, 0.0) for node in nodes] for kind in ("CPU", "GPU"))
        if self.gpus and not any(gpus):
            raise SettingsError(f"--gpus-per-run is {self.gpus:g}, but Ray finds no GPU; leave it out to use the CPU")
        fit = sum(int(min(c // self.cpus, g // self.gpus if self.gpus else c)) for c, g in zip(cpus, gpus, strict=True))
        given = f"--cpus-per-run {self.cpus}" + (f" and --gpus-per-run {self.gpus:g}" if self.gpus else "")
        largest = f"the largest machine has {max(cpus, default=0):g} CPUs and {max(gpus, default=0):g} GPUs"
        if not fit:
            raise SettingsError(f"no machine has room for a run with {given}: {largest}")
        if self.workers is not None and self.workers > fit:
            raise SettingsError(f"--workers is {self.workers}, but only {fit} runs fit with {given}: {largest}")
        return fit if self.workers is None else self.workers


class Slot:
    """The actor: a worker that can be stopped while it makes a run."""

    def __init__(self, settings: BatchSettings, runs: str, cpus: int) -> None:
        """Start the worker; an error is kept for the first call of `problem` or `work`."""
        self._stopped, self._cpus, self._problem = threading.Event(), cpus, ""
        try:
            self._worker = Worker(settings, Path(runs), stopping=self._stopped.is_set)
        except UserError as error:
            self._problem = error_line(error)

    def problem(self) -> str:
        """The reason why this worker cannot make runs; empty if it can."""
        return self._problem

    def work(self, row: Row) -> Outcome:
        """Make the run of a row, see `Worker.work`."""
        if self._problem:
            return Outcome("failed", self._problem)
        import numba
        import torch

        torch.set_num_threads(self._cpus)
        numba.set_num_threads(min(self._cpus, numba.get_num_threads()))  # of this thread
        return self._worker.work(row)

    def stop(self) -> None:
        """Save the state of the present run and end it."""
        self._stopped.set()


class RayEngine:
    """Makes the runs of rows with Ray actors, each of which keeps its prior loaded."""

    def __init__(self, settings: BatchSettings, runs: Path, resources: Resources, address: str | None) -> None:
        """Set up the engine; nothing is started.

        Args:
            settings: Settings of all rows.
            runs: Folder of the run folders, which all machines see.
            resources: Resources of a run.
            address: Address of a Ray cluster, or `auto`; None: a cluster on this machine that ends with the batch.
        """
        self._settings, self._runs, self._resources, self._address = settings, runs.resolve(), resources, address
        self.slots = 0

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Outcome]]:
        """Make the runs; yields each row with its outcome as it ends."""
        ray = ray_module()
        with _connected(ray, self._address):
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self.slots = min(self._resources.slots(machines), len(rows))
            logger.info(f"{self.slots} workers of {self._resources.cpus} CPUs and {self._resources.gpus:g} GPUs")
            actors = [self._actor(ray) for _ in range(self.slots)]
            _check(ray, actors)
            yield from _shared_out(ray, actors, rows)

    def _actor(self, ray: Any) -> Any:
        resources = self._resources
        remote = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_restarts=-1,
            max_task_retries=ATTEMPTS - 1,
            concurrency_groups={"control": 1},
        )(Slot)
        return remote.remote(self._settings, str(self._runs), resources.cpus)


def _check(ray: Any, actors: Sequence[Any]) -> None:
    """Raises UserError if a worker cannot start, for example without the package or the folder on its machine."""
    try:
        problems = ray.get([actor.problem.remote() for actor in actors])
    except ray.exceptions.RayError as error:
        raise UserError(f"a worker cannot start: {error}") from error
    if problem := next(filter(None, problems), ""):
        raise UserError(problem)


def _shared_out(ray: Any, actors: Sequence[Any], rows: Sequence[Row]) -> Iterator[tuple[Row, Outcome]]:
    """Give every free actor the next row; yields each row with its outcome as it ends."""
    waiting = iter(rows)
    running: dict[Any, tuple[Row, Any]] = {}

    def begin(actor: Any) -> None:
        if (row := next(waiting, None)) is not None:
            running[actor.work.remote(row)] = row, actor

    for actor in actors:
        begin(actor)
    try:
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            row, actor = running.pop(ended)
            outcome = _outcome(ray, ended)
            begin(actor)
            yield row, outcome
    except (KeyboardInterrupt, GeneratorExit):
        if running:
            logger.warning(f"saving {len(running)} runs; a second signal ends them at once")
            for _, actor in running.values():
                actor.stop.options(concurrency_group="control").remote()
            ray.wait(list(running), num_returns=len(running), timeout=GRACE)
        raise


def _outcome(ray: Any, reference: Any) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        return Outcome("failed", f"its worker died {ATTEMPTS} times, for example for lack of memory: {reason}")


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connection to a cluster, or one on this machine for the duration of the context."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    folder = None
    try:
        if address is None:
            # Sockets live in this folder, and the system limits the length of their paths.
            folder = tempfile.mkdtemp(prefix="sdray-", dir="/tmp" if os.name == "posix" else None)
            ray.init(
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                _temp_dir=folder,
                _system_config={"worker_niceness": 0},  # Ray's 15 gives all other processes of the machine priority
                **quiet,
            )
            secured = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"  # Ray sets it if it is unset
            token = "and accepts connections with the token of this user only" if secured else "WITHOUT a token"
            logger.info(f"Ray listens on all network interfaces of this machine {token}")
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        where = "on this machine" if address is None else f"at '{address}'"
        raise UserError(f"cannot use Ray {where}: {type(error).__name__}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()
        if folder is not None:
            with suppress(OSError):
                shutil.rmtree(folder)


def ray_module() -> Any:
    """The package ray. Raises UserError if it is not installed."""
    try:
        import ray
    except ImportError:
        raise UserError(
            "several workers need Ray; install it with: pip install 'steindreamer[batch]', or start the command once "
            "per machine with --shard"
        ) from None
    return ray
