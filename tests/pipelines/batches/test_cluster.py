"""Batches on Ray actors: placement, a worker that dies, a full disk, and what is said without Ray."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import full_disk
import pytest
from small_batch import WORDS, glb_files, small_config, small_images

from steindreamer.pipelines import generate
from steindreamer.pipelines.batches.cluster import Resources
from steindreamer.pipelines.batches.settings import folder_name
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import SettingsError

STEPS = ("stages.coarse.steps=12",)
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
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds the names of open files in /proc")
def test_a_killed_worker_and_a_full_disk_cost_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that owns a run's folder is killed, and another run meets a full disk while its asset is written; the
    assets equal those of single runs with as many threads.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(full_disk.__file__).parent))  # for the plugin in the workers
    prompts, out, single = tmp_path / "p.txt", tmp_path / "out", tmp_path / "single"
    plugin, full = tmp_path / "full_disk.py", tmp_path / "full.txt"
    shutil.copy(full_disk.__file__, plugin)
    configs = [small_config(prompt, *STEPS) for prompt in ("a red mug", "a blue chair", "a green hat")]
    killed, disk, other = map(folder_name, configs)
    prompts.write_text("\n".join(config.prompt for config in configs))
    full.write_text(disk)
    words = ["--workers", "2", "--cpus-per-run", "1", "--plugin", str(plugin), *STEPS]
    command = ["batch", str(prompts), "--out", str(out), *WORDS, *words]

    owners = list[int]()
    killer = threading.Thread(target=lambda: owners.append(kill_owner(out / "runs" / killed)), daemon=True)
    killer.start()
    assert main(command) == 1
    killer.join(1.0)
    assert owners[0] != os.getpid()
    (failure,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert failure["line"] == 2 and "No space left on device" in failure["message"]
    assert glb_files(out).keys() == {killed, other}
    assert not list(out.rglob("*.partial")) and not (out / "runs" / disk / "summary.json").exists()

    full.unlink()
    assert main(command) == 0
    assert not (out / "failed.jsonl").read_text()
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    small_images(monkeypatch)
    try:
        for config in configs:
            generate(config, single / "runs" / folder_name(config))
    finally:
        torch.set_num_threads(threads)
    assert glb_files(out) == glb_files(single) and len(glb_files(out)) == 3


def kill_owner(run: Path) -> int:
    """Kill the process that makes a run once it has a checkpoint; returns its number."""
    end = time.monotonic() + 240
    while not (run / "checkpoints" / "000002.json").exists():
        assert time.monotonic() < end, "no checkpoint"
        time.sleep(0.01)
    owner = int(json.loads((run / ".lock").read_bytes())["pid"])
    os.kill(owner, signal.SIGKILL)
    return owner
