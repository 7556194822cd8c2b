"""One process at a time writes to a run's folder, and none that has ended stands in the way."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.runs.lock import NAME, owned

OWN = """
import sys, time
from pathlib import Path
from steindreamer.pipelines.runs.lock import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(100)
"""


@contextmanager
def _owner(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that owns it; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", OWN, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "owned\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_another_process_is_refused_and_named_until_it_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text("prompt: a red mug\n")
    for arguments in (["--overwrite"], []):
        with _owner(tmp_path) as process:
            with pytest.raises(UserError, match=rf"in use: process {process.pid} is writing to it"), owned(tmp_path):
                pass
            assert main(["--out", str(tmp_path), "--prior", "world", "--prompt", "a red mug", *arguments]) == 1
            captured = capsys.readouterr().err
            assert len(captured.splitlines()) == 1 and (str(process.pid) if arguments else "not empty") in captured
        assert (tmp_path / NAME).exists(), "it was killed"
        with owned(tmp_path):
            assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()
        assert not (tmp_path / NAME).exists()
    assert (tmp_path / "config.yaml").read_text() == "prompt: a red mug\n"


def test_the_same_process_is_another_run_too(tmp_path: Path) -> None:
    with owned(tmp_path):
        with pytest.raises(UserError, match=f"process {os.getpid()}"), owned(tmp_path):
            pass
        assert (tmp_path / NAME).exists()
    with owned(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["symbolic", "hard", "pipe", "folder"])
def test_nothing_is_written_through_what_stands_in_its_place(tmp_path: Path, kind: str) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("mine")
    folder.mkdir()
    {
        "symbolic": lambda: (folder / NAME).symlink_to(victim),
        "hard": lambda: os.link(victim, folder / NAME),
        "pipe": lambda: os.mkfifo(folder / NAME),
        "folder": lambda: (folder / NAME).mkdir(),
    }[kind]()
    with pytest.raises((UserError, OSError)), owned(folder):
        pass
    assert victim.read_text() == "mine"


def test_without_locks_the_files_existence_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    caplog.set_level("INFO", logger="steindreamer")
    with owned(tmp_path):
        assert "this file system does not support locks" in caplog.messages[0]
        with pytest.raises(UserError, match=f"process {os.getpid()}.*remove"), owned(tmp_path):
            pass
    assert not (tmp_path / NAME).exists()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    owner = {"pid": ended.pid, "host": platform.node(), "since": "then"}
    (tmp_path / NAME).write_text(json.dumps(owner))
    with owned(tmp_path):
        pass
    (tmp_path / NAME).write_text(json.dumps({**owner, "host": "elsewhere"}))
    with pytest.raises(UserError, match="on elsewhere"), owned(tmp_path):
        pass
