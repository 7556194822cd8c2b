"""A comparison's runs end with it, however it ends, and import nothing from the folder that it is called in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steindreamer.pipelines.comparison.children import Children
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps

ROOT = Path(__file__).parents[3]
PARENT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background
from steindreamer.pipelines.comparison.children import Children
print(Children().run("lasting", [sys.argv[1]], dict(os.environ)))
"""
LASTING = """
import os, sys, time
from pathlib import Path
from steindreamer.pipelines.comparison.children import follow_parent
follow_parent(sys.argv)
Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(100)
"""
FAILING = "import sys; print('noise'); sys.exit('first\\nlast: ' + sys.argv[1])"


def _wait(until: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Whoever has ended and was not waited for yet is a zombie.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_child_ends_with_its_parent(tmp_path: Path, number: int) -> None:
    (tmp_path / "lasting.py").write_text(LASTING)
    note = tmp_path / "pid"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(note)], env=environment, stderr=subprocess.DEVNULL)
    assert _wait(lambda: note.exists() and note.read_text(), 60)
    child = int(note.read_text())
    assert _is_alive(child)
    parent.send_signal(number)
    parent.wait(60)
    assert _wait(lambda: not _is_alive(child), 30)


def test_a_child_says_how_it_ended_and_sees_only_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "failing.py").write_text(FAILING)
    (tmp_path / "here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    assert Children().run("failing", ["x"], os.environ) == (1, "last: x")
    status, message = Children().run("here", [], os.environ)
    assert status == 1 and "No module named here" in message


@pytest.mark.slow
def test_a_killed_comparison_leaves_no_run_behind(tmp_path: Path) -> None:
    """Killed as a process can be; the run saves where it is. What lies in the current folder is not imported."""
    (tmp_path / "safetensors.py").write_text("open('PWNED', 'w')\n")
    command = [
        sys.executable, str(ROOT / "pipelines" / "compare.py"), "--methods", "sds", "--prior", "world", "--score",
        "psnr", "--prompts", "a red mug", "--seeds", "0", "--out", "c", "--tuples", "0", "--views", "1", "--size", "16",
        "--measurements", "1", "--settings", "stages.coarse.steps=100000", "stages.coarse.resolution=16",
        "stages.coarse.warmup_resolution=16", "representation.count=60",
    ]  # fmt: skip
    parent = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    folder = tmp_path / "c" / "runs" / "sds--a-red-mug--0"
    assert _wait(lambda: (folder / "metrics.jsonl").exists() or parent.poll() is not None, 200)
    assert parent.poll() is None, parent.communicate()[1]
    assert (folder / ".lock").exists()
    parent.kill()
    parent.communicate()
    assert _wait(lambda: not (folder / ".lock").exists(), 60), "its owner has ended"
    assert len(checkpoint_steps(folder / "checkpoints")) == 1, "the step under way was saved"
    assert not (tmp_path / "PWNED").exists()
