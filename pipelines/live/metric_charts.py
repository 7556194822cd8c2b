"""Charts of a run's metrics.jsonl in the live view."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import viser
from viser.uplot import Scale, Series

from ..runs.training_log import read_records

SECONDS = 2.0
"""Least time between two updates."""


class MetricCharts:
    """Curves of loss, relative variance and seconds per step, below the other controls.

    Args:
        gui: The panel.
        path: The run's metrics.jsonl, which may not exist yet.
    """

    def __init__(self, gui: viser.GuiApi, path: Path) -> None:
        self._gui, self._path = gui, path
        self._folder = gui.add_folder("Charts", visible=False)
        self._at, self._size, self._charts = -math.inf, -1, dict[str, Any]()

    def update(self) -> None:
        """Draw the file if it has changed."""
        now = time.perf_counter()
        if now - self._at < SECONDS:
            return
        self._at = now
        size = self._path.stat().st_size if self._path.is_file() else -1
        if size == self._size:
            return
        self._size = size
        for name, points in _curves(read_records(self._path)).items():
            if len(points) > 1:
                self._draw(name, tuple(np.array(column, dtype=np.float64) for column in zip(*points, strict=True)))

    def _draw(self, name: str, data: tuple[np.ndarray, ...]) -> None:
        if name in self._charts:
            self._charts[name].data = data
            return
        self._folder.visible = True
        with self._folder:
            series = (Series(label="step"), Series(label=name, stroke="#1a7f5a", width=1.5))
            self._charts[name] = self._gui.add_uplot(
                data, series, title=name, scales={"x": Scale(time=False)}, aspect=2.0
            )


def _curves(records: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    return {
        "loss": [(r["step"], r["loss"]) for r in records if "loss" in r],
        "variance / SDS": [
            (r["step"], r["variance"] / r["variance_sds"]) for r in records if r.get("variance_sds") and "variance" in r
        ],
        "seconds per step": [(r["step"], r["seconds_per_step"]) for r in records if "seconds_per_step" in r],
    }
