"""Plots of curves over the number of prior evaluations, with confidence bands (matplotlib, extra `compare`)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UserError
from .intervals import Interval

COLORS = ("#555555", "#c2571a", "#1a7f5a", "#3b5fc0", "#a03a8f", "#b59000", "#2b9fb0", "#7a4b2a")

LOGARITHMIC_FROM = 4
STYLES = ("-", (0, (5, 1.5)), (0, (2, 1.5)))
"""Line styles, so that overlapping curves remain distinguishable."""

Curve = Sequence[tuple[float, Interval]]


@dataclass(frozen=True)
class Panel:
    """Contents of one pair of axes."""

    title: str
    label: str
    """Label of the vertical axis."""
    curves: Mapping[str, Curve]
    """Curves by method; the order determines the colors."""
    logarithmic: bool = False
    """Use a logarithmic vertical axis if the values differ by a factor of `LOGARITHMIC_FROM` or more."""
    line: float | None = None
    """Position of a horizontal line, such as a threshold or 1; None for no line."""


def check_matplotlib() -> None:
    """Check that matplotlib can be imported. Raises UserError."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise UserError("plots need matplotlib: pip install -e '.[compare]'") from error


def draw(panels: Sequence[Panel], columns: int = 2) -> bytes:
    """Draw the panels in rows of `columns`; returns a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5.6 * columns, 3.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(grid, panels, strict=False):
        _draw(axes, panel)
    for axes in list(grid)[len(panels) :]:
        axes.set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _draw(axes: Any, panel: Panel) -> None:
    for index, (label, curve) in enumerate(panel.curves.items()):
        color = COLORS[index % len(COLORS)]
        points = [(x, interval) for x, interval in curve if math.isfinite(interval.mean)]
        x, mean = [x for x, _ in points], [interval.mean for _, interval in points]
        style = STYLES[index % len(STYLES)]
        axes.plot(x, mean, color=color, label=label, marker="o", markersize=3, linewidth=1.5, linestyle=style)
        known = [(x, interval) for x, interval in points if math.isfinite(interval.low)]
        axes.fill_between(
            [x for x, _ in known], [i.low for _, i in known], [i.high for _, i in known], color=color, alpha=0.15, lw=0
        )
    if panel.line is not None:
        axes.axhline(panel.line, color="#999", linewidth=0.8, linestyle="--")
    means = [i.mean for curve in panel.curves.values() for _, i in curve if i.mean > 0]
    if panel.logarithmic and means and max(means) > LOGARITHMIC_FROM * min(means):
        axes.set_yscale("log")
    axes.set_title(panel.title, fontsize=10)
    axes.set_xlabel("prior calls", fontsize=9)
    axes.set_ylabel(panel.label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
