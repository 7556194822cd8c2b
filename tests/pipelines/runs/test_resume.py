"""A run that is killed and resumed ends in the same bits as one that was left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps

ROOT = Path(__file__).parents[3]
SETTINGS = [
    "--prompt", "a red mug", "--no-refine", "stages.coarse.steps=40", "stages.coarse.resolution=32",
    "stages.coarse.warmup_resolution=24",
    "representation.count=400", "output.checkpoint_every=5", "output.preview_every=0", "output.turntable_frames=0",
    "output.log_every=4", "output.image_size=32", "stages.coarse.probe_every=4", "export.resolution=32",
    "export.texture_size=64", "export.lods=[1]", "export.hulls=0", "export.face_budget=500",
    "prior.name=world", "prior.objects=2",
]  # fmt: skip
STAGES = {"coarse": 15, "geometry": 15, "texture": 15}
STAGED = [
    "--prompt", "a red mug", "prior.name=world", "prior.objects=2",
    *(f"stages.{name}.{setting}" for name, steps in STAGES.items() for setting in (
        f"steps={steps}", "resolution=32", "warmup_resolution=24", "probe_every=4"
    )),
    "stages.geometry.representation={name: dmtet, resolution: 20, color: {grid: {levels: 2, log2_size: 10}}}",
    "output.checkpoint_every=5", "output.preview_every=0", "output.turntable_frames=0", "output.log_every=4",
    "output.image_size=32", "export.resolution=32", "export.cameras=16", "export.view_size=64",
    "export.texture_size=128", "export.lods=[1]", "export.hulls=0", "export.face_budget=500", "export.padding=1",
]  # fmt: skip
SMALL = {
    "gaussians": ["representation.count=400"],
    "mesh": ["representation.resolution=20", "representation.color.grid={levels: 2, log2_size: 10}"],
}


def _start(folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--out", str(folder), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def _stages_saved(folder: Path) -> dict[int, str]:
    """The stage of every checkpoint, by the run's steps."""
    checkpoints = folder / "checkpoints"
    return {step: _stage_of(checkpoints / f"{step:06d}.json") for step in checkpoint_steps(checkpoints)}


def _stage_of(path: Path) -> str:
    try:
        return json.loads(path.read_text())["stage"]
    except FileNotFoundError:  # only the newest two stay: it was listed, and is gone by now
        return ""


def _kill_after(process: subprocess.Popen[str], folder: Path, stage: str, step: int) -> None:
    """SIGKILL once a checkpoint of `stage` at or after this step of the run exists."""
    deadline = time.monotonic() + 240
    while not any(name == stage and done >= step for done, name in _stages_saved(folder).items()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    newest = max(_stages_saved(folder).items())
    assert newest[1] == stage, f"it went on to {newest} before it could be killed"
    assert not (folder / "asset" / "asset.glb").exists()


def _assert_same(one: Path, other: Path, last: int) -> None:
    """Final checkpoint, asset and metrics."""
    names = [folder / "checkpoints" / f"{last:06d}.safetensors" for folder in (one, other)]
    first, second = (load_file(name) for name in names)
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    assert (one / "asset" / "asset.glb").read_bytes() == (other / "asset" / "asset.glb").read_bytes()
    assert _metrics(one) == _metrics(other)


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("representation", "kills"),
    [
        # The second is at the conversion: after the last checkpoint of one stage, before the first of the next.
        ("gaussians", [("coarse", 5), ("coarse", 15), ("geometry", 20), ("texture", 35)]),
        ("mesh", [("geometry", 20)]),
    ],
)
def test_killed_in_any_stage_equals_left_alone(
    tmp_path: Path, representation: str, kills: list[tuple[str, int]]
) -> None:
    """One run that is killed again and again; every kill would show in the end."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = ["--repr", representation, *STAGED, *SMALL[representation]]
    log = _finish(_start(whole, *settings))
    assert log.count("conversion: ") == 2

    process = _start(broken, *settings)
    for stage, step in kills:
        _kill_after(process, broken, stage, step)
        process = _start(broken, "--resume")
    log = _finish(process)
    assert f"in stage '{kills[-1][0]}'" in log
    _assert_same(whole, broken, sum(STAGES.values()))
    lines = [json.loads(line) for line in (broken / "metrics.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(line["stage"] for line in lines)) == list(STAGES)


@pytest.mark.slow
def test_control_c_saves_the_step_under_way(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = _start(folder, *SETTINGS, "output.checkpoint_every=0", "stages.coarse.steps=4000")
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and "continue with --resume" in output and "Traceback" not in output
    assert len(checkpoint_steps(folder / "checkpoints")) == 1
