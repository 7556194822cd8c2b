"""The one command for a GPU machine, with a `python` in its way that only notes what it was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "-m pytest -m gpu -n 0",
    "benchmarks/rendering.py --device cuda",
    "benchmarks/diffusion.py",
    "benchmarks/diffusion.py --compile",
]


def run(folder: Path, failing: str) -> tuple[int, list[str]]:
    """Exit status and commands, where what begins with `failing` fails."""
    (folder / "benchmarks" / "results").mkdir(parents=True)
    script = shutil.copy(ROOT / "benchmarks" / "gpu.sh", folder / "benchmarks")
    programs = folder / "bin"
    programs.mkdir()
    for name in ("python", "nvidia-smi"):
        (programs / name).write_text(
            f'#!/bin/sh\necho "{name} $*" >> {folder}/asked\ncase "$*" in {failing}*) exit 1; esac\n'
        )
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([script], env=environment, capture_output=True, text=True)
    asked = (folder / "asked").read_text().splitlines()
    return done.returncode, [line.removeprefix("python ") for line in asked if line.startswith("python ")]


@pytest.mark.parametrize(
    "failing", ["nothing", "'-m pytest'", "benchmarks/rendering.py", "'benchmarks/diffusion.py --c'"]
)
def test_all_is_run_and_a_failure_is_told(failing: str, tmp_path: Path) -> None:
    status, commands = run(tmp_path, failing)
    assert commands[1:] == COMMANDS
    assert status == (failing != "nothing")
    assert "$ python -m pytest -m gpu -n 0" in (tmp_path / "benchmarks" / "results" / "gpu_tests.txt").read_text()


def test_without_a_gpu_nothing_is_run(tmp_path: Path) -> None:
    status, commands = run(tmp_path, "-c")
    assert status == 1 and len(commands) == 1
    assert not [*(tmp_path / "benchmarks" / "results").iterdir()]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_where_there_is_none_it_says_so_in_one_line() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([ROOT / "benchmarks" / "gpu.sh"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "torch finds no CUDA device\n")


def test_its_benchmarks_are_there() -> None:
    for command in COMMANDS[1:]:
        assert (ROOT / command.split()[0]).is_file()
