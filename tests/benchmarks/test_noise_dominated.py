"""The benchmark of calls to a quality: what it computes from runs, and one small grid."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("noise_dominated")


def test_calls_are_interpolated_between_budgets(script: Any) -> None:
    curve = {0.25: 10.0, 0.5: 12.0, 1.0: 13.0}
    assert script.calls_to(12.0, curve) == pytest.approx(0.5)
    assert script.calls_to(12.5, curve) == pytest.approx(math.sqrt(0.5))
    assert script.calls_to(9.0, curve) == 0.25
    assert script.calls_to(13.1, curve) == math.inf


def test_methods_have_equal_calls(script: Any) -> None:
    """Steps times predictions of a step; a guided prediction counts twice for all of them."""
    row = "CFG 7.5, spread 2"
    for method in ("SDS", "antithetic pairs", "SDS, reuse 4"):
        way = script.METHODS[method]
        stage = script.build(script.Key(row, method, 0.6, 4.0, 0, 40))
        assert stage.config.steps * way.draws == 24
        assert stage.distiller.antithetic == (way.draws == 2)


def test_a_small_grid_runs_and_is_not_repeated(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "TUPLES", 8)
    monkeypatch.setattr(script, "BUDGETS", (0.6, 1.0))
    runs, table = tmp_path / "runs.jsonl", tmp_path / "table.md"
    words = ["--rows", "CFG 1, spread 2", "--methods", "antithetic pairs", "--seeds", "1", "--steps", "10"]
    words += ["--rates", "2", "4", "--runs", str(runs), "--result", str(table)]
    script.main(words)
    records = [json.loads(line) for line in runs.read_text().splitlines()]
    # Two methods, two budgets, two rates on two seeds.
    assert len(records) == 2 * 2 * 2 * 2
    assert all(10 < record["psnr"] < 40 for record in records)
    pairs = [record for record in records if record["method"] == "antithetic pairs" and record["budget"] == 1]
    assert {record["calls"] for record in pairs} == {10}
    text = table.read_text()
    assert "| CFG 1, spread 2 | antithetic pairs |" in text and "reached in 60%" in text

    monkeypatch.setattr(script, "run", None)
    script.main(words)
    assert table.read_text() == text
    script.main([*words, "--methods", "antithetic pairs", "SDS, reuse 4", "--table"])
    assert table.read_text() == text, "there are no runs with reuse"
