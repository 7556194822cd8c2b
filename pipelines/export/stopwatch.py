"""How long each step of the export took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """`with watch("unwrap"): ...` reports a line and keeps the wall-clock seconds by title."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.report = report
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[title] = time.perf_counter() - start
        self.report(f"  {title:<7} {self.seconds[title]:5.1f} s")
