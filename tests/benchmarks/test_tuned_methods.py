"""The benchmark of methods at their own best settings: equal calls, and one small grid."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("tuned_methods")


def test_a_small_grid_has_equal_calls_and_is_not_repeated(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [script.Point(3.0, 1, 1, 1), script.Point(3.0, 2, 2, 1)]
    small = ["stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "representation.count=60"]
    for name, value in {"GRID": points, "REPORTED": ["an orange car"], "VIEWS": 2, "SIZE": 32}.items():
        monkeypatch.setattr(script, name, value)
    monkeypatch.setattr(script, "SETTINGS", small)
    runs, table = tmp_path / "runs.jsonl", tmp_path / "table.md"
    words = ["--priors", "world", "--calls", "8", "--seeds", "1", "--runs", str(runs), "--result", str(table)]
    script.main(words)
    records = [json.loads(line) for line in runs.read_text().splitlines()]
    assert len(records) == 2 * (2 * 2 + 2), "two methods: two points on two prompts, then two budgets"
    steps = {(record["point"]["views"], record["calls"]): (record["steps"], record["spent"]) for record in records}
    assert steps[1, 8] == (8, 8) and steps[2, 8] == (2, 8)
    assert all(5 < record["psnr"] < 40 and 0 <= record["score"] <= 1 for record in records)
    text = table.read_text()
    assert "| SSD | rate 3, views" in text and "± nan" in text, "one run has no interval"

    monkeypatch.setattr(script, "run", None)
    script.main([*words, "--table"])
    assert table.read_text() == text
