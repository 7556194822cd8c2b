"""Time left: the sum over stages of different cost, at the speed of the machine."""

from __future__ import annotations

import pytest

from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.runs.time_left import ExpectedStage, TimeLeft, expected_stages

STAGES = {"coarse": ExpectedStage(100, 0.1), "geometry": ExpectedStage(50, 0.4, 20.0)}


def test_later_stages_cost_more() -> None:
    left = TimeLeft(STAGES, ending=5.0)
    for _ in range(40):
        left.record("coarse", 0.1)
    assert left.after(40) == pytest.approx(60 * 0.1 + 20 + 50 * 0.4 + 5)


def test_a_slow_machine_scales_the_steps() -> None:
    left = TimeLeft(STAGES, ending=5.0)
    for _ in range(40):
        left.record("coarse", 0.3)
    assert left.after(40) == pytest.approx(3 * (60 * 0.1 + 50 * 0.4) + 20 + 5)


def test_the_present_stage_counts_alone() -> None:
    """Its conversion is over, and steps of the one before say nothing about it."""
    left = TimeLeft(STAGES, ending=5.0)
    for _ in range(100):
        left.record("coarse", 0.1)
    left.record("geometry", 0.5)
    assert left.after(101) == pytest.approx(49 * 0.5 + 5)


def test_compilation_in_the_first_step_is_ignored() -> None:
    left = TimeLeft(STAGES, ending=5.0)
    for seconds in (60.0, 0.1, 0.1, 0.1):
        left.record("coarse", seconds)
    assert left.after(4) == pytest.approx(96 * 0.1 + 20 + 50 * 0.4 + 5)


def test_stages_of_a_configuration() -> None:
    config = load_config(overrides=["stages.geometry.steps=0"])
    stages = expected_stages(config)
    assert list(stages) == ["coarse", "texture"]
    assert stages["coarse"].conversion_seconds == 0 < stages["texture"].conversion_seconds
    finer = expected_stages(load_config(overrides=["stages.texture.resolution=512"]))
    assert finer["texture"].step_seconds > 2 * stages["texture"].step_seconds
