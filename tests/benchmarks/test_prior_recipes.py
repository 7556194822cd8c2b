"""The table of recipes: that it trains, and what it reads from runs."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steindreamer.training.prior.evaluate import Examples
from steindreamer.training.prior.model import PriorShape

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("prior_recipes")


def _cells(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_recipe_differs_from_the_shipped_one(script: Any) -> None:
    settings = [(recipe.training, recipe.shape) for recipe in script.RECIPES.values()]
    assert len(set(settings)) == len(settings) > 3


def test_recipes_are_trained_and_runs_are_read(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(
        script.VIEWS,
        kinds=("apple",),
        held_out=(("apple", "pink"),),
        sets_per_caption=1,
        objects_per_set=2,
        cameras_per_set=2,
    )
    monkeypatch.setattr(script, "VIEWS", few)
    monkeypatch.setattr(Examples, "render", partial(Examples.render, count=8))
    small = {"shape": PriorShape(8, (32, 32), 16, 1, size=few.size, modalities=few.modalities)}
    recipes = {name: script.Recipe(name, **small) for name in ("one", "two")}
    monkeypatch.setattr(script, "RECIPES", recipes)
    result = tmp_path / "result.md"
    script.main(["--seconds", "0.2", "--recipes", "one,two", "--out", str(tmp_path), "--result", str(result)])
    head, _, one, two = _cells(result)
    assert len(head) == len(one) and [one[0], two[0]] == ["one", "two"]
    record = json.loads((tmp_path / "one" / "evaluation.jsonl").read_text())
    assert one[3] == f"{record['step']:,}" and one[head.index("t = 950")] == f"{record['color']['right']['950']:.4f}"
    assert one[-1] == "no", "this one has learned nothing yet"

    # At the latest time that both have reached, and with a camera that matters.
    errors = record["color"]
    listening = {**record, "color": {**errors, "turned by 90 degrees": {"950": 2 * errors["right"]["950"]}}}
    for name, seconds in (("one", [5, 90]), ("two", [4, 8])):
        records = [{**listening, "step": each, "cpu_seconds": each} for each in seconds]
        (tmp_path / name / "evaluation.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in records))
    script.main(["--runs", str(tmp_path / "one"), str(tmp_path / "two"), "--result", str(result)])
    _, _, one, two = _cells(result)
    assert (one[4], two[4]) == ("5", "8")
    assert one[head.index("camera +90")] == "+100%" and one[-1] == "yes"
