"""Runs that torchrun starts in several processes: one is killed, and the run continues with other numbers of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked_ranks
import pytest
import torch
from safetensors.torch import load_file

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.runs.launching import joined, launched_rank

RUN = Path(__file__).parents[3] / "pipelines" / "run.py"
STEPS = 6
SAME, CLOSE, ROTATIONS, LOSS = 1e-4, 5e-3, 0.1, 1e-2
"""Relative differences of the final states: after the same first steps, and after first steps whose sums are taken in
another order. Round Gaussians have no gradient of the rotation but rounding, which Adam divides by its own size. The
last one is the relative difference of losses after such steps."""
SETTINGS = [
    "--prompt", "a red mug", "--prior", "world", "--no-refine", "prior.objects=1", "representation.count=200",
    f"stages.coarse.steps={STEPS}", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
    "stages.coarse.views.per_step=4", "export.enabled=false", "output.checkpoint_every=1", "output.preview_every=0",
    "output.turntable_frames=0", "output.image_size=16", "output.log_every=1",
]  # fmt: skip


def start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def worker_of(launcher: int, rank: int) -> int:
    """The process of a rank, among the children of torchrun."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = re.search(r"^PPid:\t(\d+)$", status.read_text(), re.M)
            if parent and int(parent[1]) == launcher:
                variables = (status.parent / "environ").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in variables:
                    return int(status.parent.name)
        except OSError:  # it has ended
            continue
    raise AssertionError(f"torchrun has no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc, which is missing")
def test_a_run_whose_process_is_killed_continues_with_other_numbers_of_processes(tmp_path: Path) -> None:
    """Two processes, of which one is killed, then one, or four; against one process all the way."""
    broken, four, whole = (tmp_path / name for name in ("broken", "four", "whole"))
    run = start(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(RUN), *SETTINGS, "--out", str(broken)
    )
    wanted = broken / "checkpoints" / "000002.json"
    while not wanted.exists() and run.poll() is None:
        time.sleep(0.005)
    os.kill(worker_of(run.pid, 1), signal.SIGKILL)
    run.communicate(timeout=600)
    assert run.returncode != 0 and not (broken / "summary.json").exists()

    shutil.copytree(broken, four)
    resumed = start(forked_ranks.__file__, "4", "--resume", "--out", str(four))
    assert main(["--resume", "--out", str(broken)]) == 0 and main([*SETTINGS, "--out", str(whole)]) == 0
    output = resumed.communicate(timeout=600)[0].decode()
    assert resumed.returncode == 0, output[-3000:]
    assert output.count("done in") == 1, "only one process reports"

    one, two, expected = (
        load_file(folder / "checkpoints" / f"{STEPS:06d}.safetensors") for folder in (broken, four, whole)
    )
    assert one.keys() == two.keys() == expected.keys()
    assert one["generator"].equal(expected["generator"]) and two["generator"].equal(expected["generator"])
    for name, tensor in expected.items():
        if name.startswith("representation."):
            size = tensor.norm().clamp(min=1e-6)
            assert (two[name] - one[name]).norm() <= SAME * size, name
            assert (one[name] - tensor).norm() <= (ROTATIONS if "quaternions" in name else CLOSE) * size, name
    for folder in (broken, four):
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_all_processes_change_the_settings_that_the_user_of_the_view_changes(tmp_path: Path) -> None:
    pytest.importorskip("viser", reason="needs the extra `view`")
    program = start(
        forked_ranks.__file__.replace("forked_ranks", "edited_runs"), str(tmp_path), *SETTINGS, "method.name=sds"
    )
    output = program.communicate(timeout=600)[0].decode()
    assert program.returncode == 0, output[-3000:]
    one, two = (
        [json.loads(line)["loss"] for line in (tmp_path / count / "metrics.jsonl").read_text().splitlines()]
        for count in "12"
    )
    assert len(one) == STEPS and one == pytest.approx(two, rel=LOSS)
    assert one[1] > 100 * one[0], "the guidance scale shows in the loss"
    edits = [json.loads((tmp_path / count / "summary.json").read_text())["edits"] for count in "12"]
    assert edits[0] == edits[1]
    assert [(each["step"], each["name"]) for each in edits[0]] == [
        (1, "prompt"), (1, "guidance_scale"), (3, "prompt"), (3, "largest_timestep")
    ]  # fmt: skip


@pytest.mark.slow
def test_errors_of_the_settings_end_all_processes(tmp_path: Path) -> None:
    settings = [*SETTINGS, "stages.coarse.views.per_step=3", "--out", str(tmp_path / "run")]
    run = start(forked_ranks.__file__, "2", *settings)
    output = run.communicate(timeout=600)[0].decode()
    assert run.returncode != 0
    assert "stages.coarse.views.per_step is 3, which 2 processes cannot share equally" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("variables", [{"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "one"}, {"WORLD_SIZE": "0"}])
def test_variables_that_do_not_fit_together_are_named(variables: dict[str, str]) -> None:
    with pytest.raises(UserError, match="torchrun sets RANK from 0"):
        launched_rank(variables)
    assert launched_rank({}) == (0, 1)


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Schedulers set RANK and WORLD_SIZE too."""
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    with pytest.raises(UserError, match="lacks MASTER_ADDR; start the run by torchrun"), joined(0, 2):
        raise AssertionError("it did not join anything")


@pytest.mark.parametrize(
    ("message", "expected"),
    [("[gloo/transport/tcp] Connection closed by peer", UserError), ("mat1 and mat2 do not fit", RuntimeError)],
)
def test_only_a_lost_connection_is_called_one(
    message: str, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_, **__: None)
    with pytest.raises(expected) as found, joined(0, 2):
        raise RuntimeError(message)
    assert type(found.value) is expected
