"""Timing of the steps of the export."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


class Stopwatch:
    """Measures wall-clock seconds by title: `with watch("unwrap"): ...` also logs a line."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start
        logger.info(f"  {title:<7} {self.seconds[title]:5.1f} s")
