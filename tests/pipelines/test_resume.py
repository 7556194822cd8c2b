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

from steindreamer.pipelines.checkpoint import checkpoint_steps

ROOT = Path(__file__).parents[2]
SETTINGS = [
    "--prompt", "a red mug", "--no-refine", "stages.coarse.steps=40", "stages.coarse.resolution=32",
    "stages.coarse.warmup_resolution=24",
    "representation.count=400", "output.checkpoint_every=5", "output.preview_every=0", "output.turntable_frames=0",
    "output.log_every=4", "output.picture_size=32", "stages.coarse.probe_every=4", "export.resolution=32",
    "export.texture_size=64", "export.face_budget=500", "prior.objects=2",
]  # fmt: skip


def _start(folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--out", str(folder), *extra]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def _wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not any(done >= step for done in checkpoint_steps(folder / "checkpoints")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)


def _metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds_per_step"} for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ssd", "sds"])
def test_killed_and_resumed_equals_left_alone(tmp_path: Path, method: str) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    _finish(_start(whole, "--method", method, *SETTINGS))

    process = _start(broken, "--method", method, *SETTINGS)
    _wait_for_step(broken, 15, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert checkpoint_steps(broken / "checkpoints")[-1] < 40, "the run ended before it could be killed"
    assert "resuming after step" in _finish(_start(broken, "--resume"))

    one, other = (load_file(folder / "checkpoints" / "000040.safetensors") for folder in (whole, broken))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    assert (whole / "asset" / "asset.glb").read_bytes() == (broken / "asset" / "asset.glb").read_bytes()
    assert _metrics(whole) == _metrics(broken)


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
