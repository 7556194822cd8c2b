"""The list of prompts as people write them, and the benchmark that reads it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from steindreamer.world import KINDS, Wording
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.scorer import SIZE

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BY_DESIGN = (
    # The world's armchair is its sofa, which has arms; its turquoise is a blue.
    "an armchair made of oak",
    "My grandmother's old blue armchair",
    "big round ball,",
    # Balls of the world are beach balls: stripes of a bright color and white.
    "a soccer ball, black and white",
    "a striped ball in red and yellow",
    # What is said of the whole object is not said of its stripes.
    "red and white striped lighthouse on a rocky cliff",
    # The cone is in the name of the object.
    "a strawberry ice cream cone",
)
"""First words of the prompts that are not read as they were meant."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "wording", raising=False)
    yield importlib.import_module("wording")
    sys.modules.pop("wording", None)


def test_nine_of_ten_prompts_are_read_as_meant(script: Any) -> None:
    prompts = script.read_list()
    assert len(prompts) >= 80 and len({meant.prompt for meant in prompts}) == len(prompts)
    assert {meant.kind for meant in prompts} == {*KINDS, None}, "every kind, and prompts to be refused"
    readings = script.read_all(Wording(), prompts)
    wrong = {m.prompt for m, reading in zip(prompts, readings, strict=True) if script.faults(m, reading)}
    assert len(wrong) == len(BY_DESIGN) and all(prompt.startswith(BY_DESIGN) for prompt in wrong), wrong
    assert len(wrong) <= 0.1 * len(prompts)


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ("a red chair", "a chair, not a mug"),
        ("a blue mug with a white handle", "blue, not red"),
        ("a red mug", "no handle"),
        ("a red mug with a handle", "handle of no color, not white"),
        ("a red mug with a white handle", "sticker not named"),
    ],
)
def test_faults_are_found(script: Any, prompt: str, fault: str) -> None:
    parts = {"handle": "white", **({"sticker": None} if "sticker" in fault else {})}
    meant = script.Meant("", "mug", "red", parts)
    assert fault in script.faults(meant, Wording().read(prompt))
    assert script.faults(meant, None) == ["refused"]
    assert script.faults(script.Meant("", None, None, {}), Wording().read(prompt)) == ["not refused"]


def test_samples_and_page(script: Any, generator: torch.Generator) -> None:
    prior = WorldPrior(WorldPriorConfig(objects=1, unconditional_objects=1))
    images = script.samples(prior, "a shiny crimson cup", generator)
    assert images.shape == (len(script.AZIMUTHS), 3, SIZE, SIZE)
    corner, middle = images[:, :, 0, 0], images[:, :, SIZE // 2, SIZE // 2]
    assert float(corner.min()) > 0.8 and float(middle[:, 0].mean()) > float(middle[:, 2].mean()) + 0.2
    prompts = [script.Meant("a crimson cup", "mug", "red", {}), script.Meant("a corgi", None, None, {})]
    readings = script.read_all(Wording(), prompts)
    text = script.page("world", prompts, readings, {"a crimson cup": "a red mug"})
    assert "**2 of 2** (100.0%)" in text and "for 1 of 1" in text
    assert "| a crimson cup | a red mug |  |  | a red mug |" in text and "| a corgi | (refused) |" in text
