"""Usual heights: every kind has one, and the setting and the file take precedence."""

from __future__ import annotations

import pytest
from analytic_scene import RenderedScene, sphere

from steindreamer.pipelines.export import ExportConfig
from steindreamer.pipelines.export.sizes import HEIGHTS, usual_height, with_usual_height
from steindreamer.representations import Placement
from steindreamer.world import KINDS


def test_every_kind_has_a_height() -> None:
    assert HEIGHTS.keys() == KINDS.keys()
    assert all(0.01 <= height <= 100 for height in HEIGHTS.values())
    assert HEIGHTS["bee"] < HEIGHTS["mug"] < HEIGHTS["chair"] < HEIGHTS["car"] < HEIGHTS["house"]


@pytest.mark.parametrize(
    ("prompt", "height"),
    [
        ("a red mug", 0.1),
        ("A shiny COFFEE CUP on a table", 0.1),
        ("a wooden chair", 0.9),
        ("a zeppelin", None),
        ("", None),
    ],
)
def test_the_object_of_the_prompt_gives_the_height(prompt: str, height: float | None) -> None:
    usual = usual_height(prompt)
    assert (usual and usual.meters) == height


def test_what_is_set_or_read_from_a_file_takes_precedence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="steindreamer")
    scene = RenderedScene(sphere())
    assert with_usual_height(ExportConfig(height_meters=2.0), scene, "a mug").height_meters == 2.0
    assert with_usual_height(ExportConfig(), scene, "a zeppelin").height_meters is None and not caplog.messages
    assert with_usual_height(ExportConfig(), scene, "a mug").height_meters == 0.1
    assert caplog.messages == ["height 0.1 m, usual for a mug (export.height_meters=... sets another)"]
    scene.placement = Placement(0.04, (0.0, 0.0, 0.0), 0.0)
    assert with_usual_height(ExportConfig(), scene, "a mug").height_meters is None
