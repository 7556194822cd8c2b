"""Signals that end a run: the state is saved first, the exit status tells which one it was."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs import runner
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.signals import Stopped, signals_handled

TINY = [
    "--prompt", "a red mug", "--no-refine", "--prior", "world", "prior.objects=1", "stages.coarse.steps=4",
    "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "representation.count=100",
    "representation.opacity=0.5", "output.checkpoint_every=0", "output.image_size=16", "output.turntable_frames=0",
    "export.resolution=24", "export.view_size=32", "export.cameras=8", "export.texture_size=64", "--quiet",
    "export.lods=[1]", "export.hulls=0",
]  # fmt: skip
SIGNALS = [number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))]


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Signals as in a terminal: whoever runs the tests in the background or under nohup has some of them ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_step_under_way_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    step, handler = Stage.step, signal.getsignal(number)

    def signaled(self: Stage) -> Any:
        if self.done == 1:
            os.kill(os.getpid(), number)
        return step(self)

    monkeypatch.setattr(Stage, "step", signaled)
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *TINY]) == 128 + number
    captured = capsys.readouterr().err
    assert "step 2 is saved" in captured and "--resume" in captured and len(captured.splitlines()) == 1
    assert number == signal.SIGINT or signal.Signals(number).name in captured
    assert checkpoint_steps(folder / "checkpoints") == [2]
    assert signal.getsignal(number) is handler


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no such signal here")
def test_the_second_one_stops_at_once_and_nohup_is_respected() -> None:
    with signals_handled(lambda: "advice") as signals:
        with signals.wait():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.number == signal.SIGTERM
            with pytest.raises(Stopped, match="SIGHUP; advice") as stop:
                os.kill(os.getpid(), signal.SIGHUP)
        assert stop.value.signal == signal.SIGHUP
        with pytest.raises(Stopped, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals_handled(lambda: "advice") as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.number
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_export_is_left_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The seconds of the first part are included in the total."""
    folder = tmp_path / "run"
    monkeypatch.setattr(runner, "export_asset", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["--out", str(folder), *TINY]) == 143
    captured = capsys.readouterr().err
    assert f"--resume --out {folder}" in captured and "SIGTERM" in captured and len(captured.splitlines()) == 1
    assert not (folder / "asset" / "asset.glb").exists() and checkpoint_steps(folder / "checkpoints") == [4]
    record = json.loads((folder / "checkpoints" / "000004.json").read_text())
    monkeypatch.undo()
    assert main(["--resume", "--out", str(folder), "--quiet"]) == 0
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seconds"] > record["seconds"] > 0
    assert f"{summary['seconds']:.0f} s in total" in (folder / "report.html").read_text()
