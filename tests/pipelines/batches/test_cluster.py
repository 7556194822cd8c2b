"""Batches on Ray actors: placement, a worker that dies, and what is said without Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_batch import WORDS, glb_files, small_config

from steindreamer.pipelines import generate
from steindreamer.pipelines.batches.cluster import Resources
from steindreamer.pipelines.batches.settings import folder_name
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import SettingsError

ROOT = Path(__file__).parents[3]
NODES = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 3.0}, {"CPU": 4.0, "GPU": 1.0}]


@pytest.mark.parametrize(
    ("resources", "slots"),
    [
        (Resources(cpus=1), 15),
        (Resources(cpus=3), 4),
        (Resources(cpus=3, workers=2), 2),
        (Resources(cpus=1, gpus=1), 3),
        (Resources(cpus=4, gpus=1), 3),
        (Resources(cpus=1, gpus=0.25), 12),
        (Resources(cpus=1, gpus=2), 1),
    ],
)
def test_runs_per_machine(resources: Resources, slots: int) -> None:
    assert resources.slots(NODES) == slots


@pytest.mark.parametrize(
    ("resources", "nodes", "message"),
    [
        (Resources(cpus=9), NODES, "no machine has room for a run with --cpus-per-run 9: the largest machine has 8"),
        (Resources(gpus=1), NODES[1:2], "--gpus-per-run is 1, but Ray finds no GPU"),
        (Resources(gpus=3), NODES, "no machine has room for a run with --cpus-per-run 1 and --gpus-per-run 3"),
        (Resources(cpus=4, workers=4), NODES, "--workers is 4, but only 3 runs fit with --cpus-per-run 4"),
    ],
)
def test_resources_that_never_come_are_refused(
    resources: Resources, nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        resources.slots(nodes)
    assert message in str(refused.value)


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "p.txt").write_text("a red mug")
    for words in (["--workers", "2"], ["--address", "auto"]):
        assert main(["batch", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out"), *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert "pip install 'steindreamer[batch]'" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs ray")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_a_killed_worker_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that owns a run's folder is killed; the assets equal those of single runs with as many threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    prompts, out, single = tmp_path / "p.txt", tmp_path / "out", tmp_path / "single"
    prompts.write_text("a red mug\na blue chair\n")
    command = [sys.executable, str(ROOT / "pipelines" / "batch.py"), str(prompts), "--out", str(out), *WORDS]
    words = ["--workers", "2", "--cpus-per-run", "1", "stages.coarse.steps=12"]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline, pid = time.monotonic() + 240, 0
    while not pid:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        for checkpoint in out.glob("runs/*/checkpoints/000002.json"):
            lock = checkpoint.parents[1] / ".lock"
            pid = int(json.loads(lock.read_bytes())["pid"]) if lock.exists() else 0
        time.sleep(0.01)
    assert pid != process.pid
    os.kill(pid, signal.SIGKILL)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for prompt in ("a red mug", "a blue chair"):
            config = small_config(prompt, "stages.coarse.steps=12")
            generate(config, single / "runs" / folder_name(config))
    finally:
        torch.set_num_threads(threads)
    assert glb_files(out) == glb_files(single) and len(glb_files(out)) == 2
