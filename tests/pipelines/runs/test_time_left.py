"""Time left: the sum over stages of different cost, at the speed of the machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.optimization.stage import StepInfo
from steindreamer.pipelines.runs.time_left import ExpectedStage, TimeLeft, expected_stages
from steindreamer.pipelines.runs.training_log import TrainingLog

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


def test_a_line_names_stage_step_and_time_left_and_the_details_are_for_those_who_ask(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="steindreamer")
    log = TrainingLog(tmp_path / "metrics.jsonl", STAGES, 10)
    values = {"residual_rms": 0.5, "variance": 2.0, "variance_sds": 8.0}
    for step in range(101, 111):
        log.record(StepInfo(step, "geometry", 3.0, values))
    (progress, details) = caplog.records
    assert progress.levelname == "INFO" and details.levelname == "DEBUG"
    assert re.fullmatch(r"stage 2 of 2, geometry: step 10 of 50 +\d+:\d\d left", progress.getMessage())
    assert "loss 3  residual 0.5" in details.getMessage() and "(25% of SDS)" in details.getMessage()
