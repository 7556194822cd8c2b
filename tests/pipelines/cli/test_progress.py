"""Progress of a run: a bar per stage in a terminal, lines in a pipe or a log file, nothing unless asked in Python."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from steindreamer.pipelines.console import console
from steindreamer.pipelines.progress import Progress, progress_shown

logger = logging.getLogger("steindreamer.pipelines.runs.training_log")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Replace standard output during a test; its fixtures have another one."""
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    return out


def log_steps() -> None:
    for stage, steps in (("stage 1 of 2, coarse", (20, 40)), ("stage 2 of 2, texture", (30,))):
        for step in steps:
            progress = Progress(stage, step, steps[-1], "1:05")
            logger.info(f"{stage}: step {step} of {steps[-1]}   1:05 left", extra={"progress": progress})
        logger.info(f"saved after {stage}")


def last_states(text: str) -> list[str]:
    """What a terminal shows in the end: after a carriage return, a line is written over."""
    return [line.split("\r")[-1].rstrip() for line in text.split("\n")]


def test_a_terminal_shows_one_bar_per_stage_and_all_other_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with console():
        log_steps()
    text = terminal.getvalue()
    assert "step 20 of 40 |###" in text.replace("█", "#") and "1:05 left" in text
    shown = last_states(text)
    assert [line for line in shown if "saved" in line] == [
        "saved after stage 1 of 2, coarse",
        "saved after stage 2 of 2, texture",
    ]
    bars = [line for line in shown if "|" in line]
    assert [line.split("|")[0] for line in bars] == [
        "stage 1 of 2, coarse: step 40 of 40 ",
        "stage 2 of 2, texture: step 30 of 30 ",
    ]


def test_a_pipe_gets_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with console():
        log_steps()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "stage 1 of 2, coarse: step 20 of 40   1:05 left" and len(lines) == 5
    assert not any("\r" in line for line in lines)


def test_python_shows_progress_alone_if_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, handlers = on_a_terminal(monkeypatch), [*logging.getLogger("steindreamer").handlers]
    log_steps()
    assert terminal.getvalue() == ""
    with progress_shown():
        log_steps()
    text = terminal.getvalue()
    assert "step 30 of 30" in text and "saved" not in text
    assert logging.getLogger("steindreamer").handlers == handlers


def test_python_shows_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown():
        log_steps()
    assert len(capsys.readouterr().out.splitlines()) == 3
