"""The engine without other processes: one run after another in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .rows import Row
from .worker import Outcome, Worker


@dataclass(frozen=True)
class LocalEngine:
    """Makes the runs of rows with one worker in this process. A signal saves the present run and ends the batch."""

    worker: Worker
    slots: int = 1

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[Row, Outcome]]:
        """Make the runs; yields each row with its outcome."""
        for row in rows:
            yield row, self.worker.work(row)
