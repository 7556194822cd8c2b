"""Output that nobody reads, that cannot be written, or that lacks letters, ends nothing and prints no traceback."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from steindreamer.pipelines.command import DONE, ERROR, USAGE, exit_status
from steindreamer.pipelines.errors import MAX_MESSAGE, Interrupted, SettingsError, UserError, in_one_line
from steindreamer.pipelines.runs.signals import Stopped
from steindreamer.pipelines.streams import complain, output_lost, put

ROOT = Path(__file__).parents[3]
TINY = [
    "--no-refine", "stages.coarse.steps=3", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
    "representation.resolution=12", "output.log_every=1", "output.turntable_frames=2", "output.image_size=16",
    "export.resolution=16", "export.cameras=8", "export.view_size=32", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=100", "prior.objects=1", "prior.unconditional_objects=1",
]  # fmt: skip


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `command`, in which RUN is run.py, PY is python."""
    run = f"{sys.executable} {ROOT / 'pipelines' / 'run.py'}"
    command = command.replace("RUN", run).replace("PY ", f"{sys.executable} ")
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_a_reader_that_goes_away_ends_no_run(tmp_path: Path) -> None:
    done = shell(f"RUN --repr mesh --prior world --prompt 'a red mug' --out run {' '.join(TINY)} | head -1", tmp_path)
    assert (done.returncode, done.stderr) == (DONE, "")
    assert "a red mug" in done.stdout and len(done.stdout.splitlines()) == 1
    assert (tmp_path / "run" / "asset" / "asset.glb").is_file() and (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("command", "status", "lines"),
    [
        ("RUN --list | head -1", DONE, 0),
        ("RUN --help | head -1", DONE, 0),
        ("RUN --list >&-", DONE, 0),
        ("RUN --help >&-", DONE, 0),
        ("RUN stage.x=1 2>&-", USAGE, 0),
        ("RUN stage.x=1 >&- 2>&- <&-", USAGE, 0),
        ("RUN --nonsense 2>/dev/full", USAGE, 0),
        ("RUN --list >/dev/full", ERROR, 1),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii RUN --prompt $'\\xc3\\xa9' stage.x=1", USAGE, 1),
        ("PYTHONIOENCODING=ascii RUN --preset $'\\xc3\\xa9.yaml'", USAGE, 1),
        ("RUN --preset $'\\xff.yaml'", USAGE, 1),
        ("RUN $'a\\nb'", USAGE, 1),
    ],
)
def test_streams_that_fail(command: str, status: int, lines: int, tmp_path: Path) -> None:
    done = shell(command, tmp_path)
    assert done.returncode == status, done
    assert len(done.stderr.splitlines()) == lines and "Traceback" not in done.stderr


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    code = "import os; from steindreamer.pipelines.streams import repair_streams, put\n"
    code += "repair_streams(); file = open('result', 'w'); put('printed'); os.write(1, b'by a library')"
    assert shell(f'PY -c "{code}" >&-', tmp_path).returncode == 0
    assert (tmp_path / "result").read_text() == ""


def test_printing_goes_on_where_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        os.close(read)
        put("nobody reads this")
        put("nor this")
        assert output_lost() == ""
    put("closed")
    assert output_lost() == ""
    sys.stdout.close()  # the null device, in the place of the closed one
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        put("too much")
        assert output_lost() == os.strerror(28) and output_lost() == ""
    letters = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", letters)
    monkeypatch.setattr(sys, "stderr", letters)
    put("é")
    complain("é\udcff")
    assert letters.buffer.getvalue() == b"?\n\\xe9\\udcff\n"  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "stdout", None)
    put("there is no stream")
    assert output_lost() == ""


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (UserError("fix\nthis"), ERROR, "error: fix this"),
        (SettingsError("no such key"), USAGE, "error: no such key"),
        (PermissionError(13, "Permission denied", "a/b"), ERROR, "error: cannot read or write a/b: Permission denied"),
        (MemoryError(), ERROR, "error: out of memory; lower"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ERROR, "error: out of memory; lower"),
        (TypeError("unhashable\ntype"), ERROR, "error: this is a bug in steindreamer: TypeError: unhashable type ("),
        (SystemExit(0), ERROR, "error: a component called sys.exit(0)"),
        (KeyboardInterrupt(), 130, "go on so"),
        (Interrupted(Path("run"), 7), 130, "interrupted; step 7 is saved"),
        (Interrupted(Path("run"), 7, signal.SIGTERM), 143, "interrupted by SIGTERM; step 7 is saved"),
        (Stopped(signal.SIGHUP, "go on so"), 129, "interrupted by SIGHUP; go on so"),
    ],
)
def test_every_end_is_one_line_and_a_status(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert exit_status(work, debug=False, stopped="go on so") == status
    captured = capsys.readouterr().err
    assert captured.startswith(message) and len(captured.splitlines()) == 1
    if "traceback: " in captured:
        kept = Path(captured.split("traceback: ")[1].strip(")\n"))
        assert "in work" in kept.read_text()
        kept.unlink()
    if isinstance(error, Exception) and not isinstance(error, Interrupted):
        with pytest.raises(type(error)):
            exit_status(work, debug=True, stopped="")


def test_messages_are_one_line_of_what_can_be_seen() -> None:
    assert in_one_line("a\r\n  b\x1b[31m\u202e\udcff") == "a b\\x1b[31m\\u202e\\udcff"
    assert in_one_line("two  blanks") == "two  blanks"
    assert len(in_one_line("x" * 10**5)) == MAX_MESSAGE
