"""The benchmark of the default command: finished runs are kept, and the report says what the scorer recognizes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steindreamer.world import parse_caption
from steindreamer.world.scorer import Accuracy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("glb", "lit", "recognition", "assets")
FACTS = {
    "seconds": 80.4, "processor_seconds": 90.0, "memory": 1.25, "faces": 1500,
    "color_difference": 0.5, "silhouette_iou": 0.99, "watertight": True,
}  # fmt: skip


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("assets")
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_prompts_are_24_known_objects(script: Any) -> None:
    captions = [parse_caption(prompt) for prompt in script.PROMPTS]
    assert len(captions) == 24 == len({caption.kind for caption in captions})


def test_a_finished_run_is_kept_and_a_failed_one_ends_the_benchmark(script: Any, tmp_path: Path) -> None:
    (tmp_path / "measured.json").write_text(json.dumps(FACTS))
    assert script.run("a red mug", "tiny", tmp_path, []) == FACTS
    with pytest.raises(SystemExit, match="'a red mug' failed"):
        script.run("a red mug", "tiny", tmp_path / "new", ["no.such=setting"])


def test_the_report_has_a_row_per_asset_and_means(script: Any) -> None:
    found = {
        look: Accuracy(float(kind), float(color), 0.0)
        for look, kind, color in (("unlit", 1, 1), ("lit", 0.5, 1), ("clay", 0, 0))
    }
    perfect = {look: Accuracy(1.0, 1.0, 1.0) for look in found}
    made = [script.Made("a red mug", FACTS, None, found), script.Made("a duck", FACTS, None, perfect)]
    text = script.table(made, "python benchmarks/assets.py")
    assert "under light 75.0 %, 100.0 %; clay 50.0 % kind" in text
    assert "| a red mug | 80 | 90 | 1.25 | 1500 | yes | 0.50 | 0.990 | 100 %, 100 % | 50 %, 100 % | 0 % |" in text
    header, rule, *rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in (header, rule, *rows)}) == 1 and len(rows) == 2


def test_images_are_tiled(script: Any) -> None:
    tile = np.zeros((4, 6, 3), np.uint8)
    assert script.tiled([tile] * 3, 2).size == (12, 8)
