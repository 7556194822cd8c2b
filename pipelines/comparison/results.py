"""Results of a comparison: curves over the budget, tables with confidence intervals, CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from steindreamer.distill.variance.probe import REFERENCE

from ..files import write_atomically
from .intervals import Interval, geometric_interval, mean_interval
from .scores import PSNR
from .trial import OWN, Measurement, Record

Quantity = Callable[[Measurement], float]
"""Function that returns a number of a measurement; nan if unknown."""


def score(measurement: Measurement) -> float:
    """Return the score at the held-out views; nan if unknown."""
    return _number(measurement.score)


def psnr(measurement: Measurement) -> float:
    """Return the PSNR against the true object in dB; nan if unknown."""
    return _number(measurement.psnr)


def chamfer(measurement: Measurement) -> float:
    """Return the Chamfer distance to the true object in millimeters; nan if unknown."""
    return _number(measurement.chamfer)


def normal_error(measurement: Measurement) -> float:
    """Return the mean error of the normals in degrees; nan if unknown."""
    return _number(measurement.normal_error)


def view_consistency(measurement: Measurement) -> float:
    """Return the fraction of views that show the correct side, 0 to 1; nan if unknown."""
    return _number(measurement.view_consistency)


@dataclass(frozen=True)
class Distance:
    """A measure of the difference between a scene and the true object."""

    of: Quantity
    title: str
    """Title with the unit."""
    larger_is_better: bool


DISTANCES = {
    "psnr": Distance(psnr, PSNR, True),
    "chamfer": Distance(chamfer, "Chamfer distance to the true surface (mm)", False),
    "normal_error": Distance(normal_error, "Mean normal error (degrees)", False),
    "view_consistency": Distance(view_consistency, "Fraction of views that show the correct side", True),
}
"""Distances by the name of their field in `Measurement`."""


def moment(name: str, estimator: str = OWN) -> Quantity:
    """Return a quantity of the variance probe.

    Args:
        name: A key of `plain_variance`.
        estimator: "own" or "sds".
    """
    return lambda measurement: _number(measurement.variance.get(estimator, {}).get(name))


def relative(name: str, *, per_call: bool = False) -> Quantity:
    """Return a moment divided by that of SDS at the same scene and tuples.

    Args:
        name: A key of `plain_variance`.
        per_call: Multiply both moments by the number of prior evaluations.
    """

    def quantity(measurement: Measurement) -> float:
        values = [moment(name, estimator)(measurement) for estimator in (OWN, REFERENCE)]
        if per_call:
            calls = [moment("calls", estimator)(measurement) for estimator in (OWN, REFERENCE)]
            values = [value * count for value, count in zip(values, calls, strict=True)]
        return values[0] / values[1] if values[1] > 0 else math.nan

    return quantity


class Results:
    """Records of a comparison, by method and prompt, in the requested order."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Group the records. Raises ValueError if there are none."""
        if not records:
            raise ValueError("there is nothing to report: no runs")
        self.records = list(records)
        self.labels = list(dict.fromkeys(record.trial.label for record in records))
        self.prompts = list(dict.fromkeys(record.trial.prompt for record in records))
        self.seeds = list(dict.fromkeys(record.trial.seed for record in records))
        self.score_name = next((record.score_name for record in records if record.score_name), "score")
        self.larger_is_better = records[0].larger_is_better

    def of(self, label: str, prompt: str | None = None) -> list[Record]:
        """Return the runs of a method, for one prompt or all."""
        return [r for r in self.records if r.trial.label == label and prompt in (None, r.trial.prompt)]

    def curve(
        self, label: str, quantity: Quantity, prompt: str | None = None, *, geometric: bool = False
    ) -> list[tuple[float, Interval]]:
        """Return (prior evaluations, interval over the runs) at every measurement."""
        runs = [record.measurements for record in self.of(label, prompt)]
        interval = geometric_interval if geometric else mean_interval
        return [
            (float(same[0].calls), interval([quantity(measurement) for measurement in same]))
            for same in zip(*runs, strict=False)
        ]

    def final(self, label: str, quantity: Quantity, prompt: str | None = None) -> Interval:
        """Return the interval over the runs after the last step."""
        return mean_interval([quantity(record.measurements[-1]) for record in self.of(label, prompt)])

    def over_training(self, label: str, quantity: Quantity, *, geometric: bool = True) -> Interval:
        """Average over the measurements of each run, then over the runs.

        Args:
            label: Label of the method.
            quantity: Number of a measurement.
            geometric: Use geometric means, for positive quantities that vary by factors.
        """
        interval = geometric_interval if geometric else mean_interval
        return interval([interval([quantity(m) for m in record.measurements]).mean for record in self.of(label)])

    def seconds_per_step(self, label: str) -> Interval:
        """Return the seconds per training step, over the runs."""
        return mean_interval([_number(record.seconds_per_step) for record in self.of(label)])

    def threshold(self, prompt: str) -> float:
        """Return the score that every method reaches on average: the worst of the methods' mean final scores."""
        finals = [self.final(label, score, prompt).mean for label in self.labels]
        return min(finals) if self.larger_is_better else max(finals)

    def calls_to(self, record: Record, threshold: float) -> float:
        """Return the prior evaluations until the score passes the threshold, linearly interpolated; inf if never."""
        sign = 1 if self.larger_is_better else -1
        points = [(m.calls, sign * (score(m) - threshold)) for m in record.measurements]
        if points and points[0][1] >= 0:
            return float(points[0][0])
        for (before, below), (after, above) in pairwise(points):
            if above >= 0:
                return before + (after - before) * -below / (above - below)
        return math.inf

    def convergence(self, label: str, thresholds: dict[str, float]) -> tuple[Interval, Interval, int]:
        """Compute how fast a method reaches the thresholds.

        A run that does not reach its threshold counts with its whole budget.

        Args:
            label: Label of the method.
            thresholds: Threshold of each prompt.

        Returns:
            Prior evaluations until the threshold, the ratio to those of the first method with the same prompt and seed,
            and the number of runs that reached it.
        """
        own, first = (self._reached(name, thresholds) for name in (label, self.labels[0]))
        spent = {key: calls for key, (calls, _) in own.items()}
        ratios = [calls / first[key][0] for key, calls in spent.items() if key in first and first[key][0] > 0]
        return mean_interval(list(spent.values())), mean_interval(ratios), sum(there for _, there in own.values())

    def _reached(self, label: str, thresholds: dict[str, float]) -> dict[tuple[str, int], tuple[float, bool]]:
        out = {}
        for record in self.of(label):
            calls = self.calls_to(record, thresholds[record.trial.prompt])
            there = math.isfinite(calls)
            spent = calls if there else float(record.measurements[-1].calls)
            out[record.trial.prompt, record.trial.seed] = (spent, there)
        return out

    def gain(self, label: str, quantity: Quantity) -> Interval:
        """Return the final quantity minus that of the first method with the same prompt and seed."""
        first = {(r.trial.prompt, r.trial.seed): quantity(r.measurements[-1]) for r in self.of(self.labels[0])}
        own = {(r.trial.prompt, r.trial.seed): quantity(r.measurements[-1]) for r in self.of(label)}
        return mean_interval([value - first[key] for key, value in own.items() if key in first])


def write_csv(results: Results, out: Path) -> None:
    """Write measurements.csv, one line per run and measurement, and runs.csv, one line per run."""
    rows = [
        {"method": r.trial.label, "prompt": r.trial.prompt, "seed": r.trial.seed, **_flat(m)}
        for r in results.records
        for m in r.measurements
    ]
    _write(out / "measurements.csv", rows)
    runs = []
    for r in results.records:
        last = r.measurements[-1]
        runs.append(
            {
                "method": r.trial.label,
                "prompt": r.trial.prompt,
                "seed": r.trial.seed,
                "settings": " ".join(r.trial.settings),
                "steps": last.step,
                "calls": last.calls,
                "score": last.score,
                **_distances(last),
                "seconds_per_step": r.seconds_per_step,
            }
        )
    _write(out / "runs.csv", runs)


def _flat(measurement: Measurement) -> dict[str, object]:
    m = measurement
    out: dict[str, object] = {
        "step": m.step, "fraction": m.fraction, "calls": m.calls, "score": m.score, **_distances(m)
    }  # fmt: skip
    for estimator, values in m.variance.items():
        out |= {f"{estimator}_{name}": value for name, value in values.items()}
    return out


def _distances(measurement: Measurement) -> dict[str, float | None]:
    return {name: getattr(measurement, name) for name in DISTANCES}


def _write(path: Path, rows: Sequence[dict[str, object]]) -> None:
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
