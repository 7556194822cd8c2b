"""The benchmark of geometric priors: its candidates load, and its tables list means and paired differences."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steindreamer.pipelines.comparison.candidates import parse_candidates
from steindreamer.pipelines.comparison.results import Results
from steindreamer.pipelines.comparison.trial import Measurement, Record, Trial

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("geometry_prior")
    sys.modules.pop("geometry_prior", None)


def record(label: str, seed: int, psnr: float) -> Record:
    trial = Trial(label, "sds", (), "a red car", seed, "", "", "cpu", 1, 1, 0, 2, 16, "world", "")
    return Record(
        trial, measurements=[Measurement(5, 1.0, 5, 0.5, psnr, 10.0, normal_error=20.0, view_consistency=1.0)]
    )


def test_the_candidates_are_known_and_told_apart(benchmark_module: Any) -> None:
    candidates = parse_candidates(benchmark_module.CONTENDERS)
    assert (
        candidates[0].label == "sds"
        and len({candidate.settings for candidate in candidates if "sds" in candidate.label}) == 5
    )


def test_the_tables_hold_means_and_paired_differences(benchmark_module: Any) -> None:
    records = [record("sds", 0, 20.0), record("sds", 1, 30.0), record("other", 0, 21.0), record("other", 1, 31.0)]
    text = benchmark_module.tables(Results(records))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    wide = f"{12.7062 * 5:.2f}"  # Student's t for two values, times their standard error
    assert [row[:2] for row in rows if row[0] != "method"] == [
        ["sds", f"25.00 ± {wide}"], ["other", f"26.00 ± {wide}"], ["other", "1.00 ± 0.00"]
    ]  # fmt: skip
    assert rows[1][2:] == ["10.00 ± 0.00", "20.00 ± 0.00", "1.00 ± 0.00"]
