"""The command `steindreamer` and its subcommands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence

import pytest

from steindreamer.pipelines.cli import run as cli
from steindreamer.pipelines.cli.main import COMMANDS, main


def test_the_overview_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; start = time.process_time()\n"
        "from steindreamer.pipelines.cli.main import main\n"
        "main(['--help']); spent = time.process_time() - start\n"
        "print([name for name in ('torch', 'numpy', 'omegaconf') if name in sys.modules], spent < 0.5, spent)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *text, last = done.stdout.splitlines()
    assert last.startswith("[] True"), last
    assert all(any(line.startswith(f"  {name} ") for line in text) for name in COMMANDS)


@pytest.mark.parametrize("module", ["steindreamer.pipelines.cli.run", "steindreamer.pipelines.batches.cluster"])
def test_idle_threads_of_command_lines_and_of_workers_sleep(module: str) -> None:
    """OpenMP reads the variable when torch is loaded."""
    code = (
        "import os, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': sys.exit(os.environ.get('OMP_WAIT_POLICY'))\n"
        f"sys.meta_path.insert(0, Finder())\nimport {module}, torch"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stderr.strip() == "PASSIVE"


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("steindreamer 0.")


@pytest.mark.parametrize("name", sorted({*COMMANDS}))
def test_every_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    captured = capsys.readouterr().out
    assert stop.value.code == 0 and captured.startswith(f"usage: steindreamer {name} ")
    assert not re.search(r"\b(run|compare|probe)\.py", captured), "examples call the command that they stand in"


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--seed", "3"], ["--seed", "3"]),
        (["run", "--seed", "3"], ["--seed", "3"]),
        (["stages.coarse.steps=3"], ["stages.coarse.steps=3"]),
        ([], []),
        (["resume", "runs/mug", "--quiet"], ["--resume", "--out", "runs/mug", "--quiet"]),
        (["export", "runs/mug", "export.x=1"], ["--resume", "--out", "runs/mug", "export.x=1", "--overwrite"]),
        (["settings", "--method", "sds"], ["--settings", "--method", "sds"]),
    ],
)
def test_what_a_command_asks_of_a_run(words: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Sequence[str]] = []
    monkeypatch.setattr(cli, "main", lambda arguments, prog: calls.append(arguments) or 0)
    assert main(words) == 0
    assert calls == [given]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["comapre"], "unknown command 'comapre' (did you mean 'compare'?)"),
        (["resume"], "give the folder of a run: steindreamer resume RUN"),
        (["export", "export.face_budget=5"], "give the folder of a run: steindreamer export RUN"),
        (["list", "a", "b"], "unrecognized arguments: b"),
    ],
)
def test_a_wrong_call_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    captured = capsys.readouterr().err
    assert stop.value.code == 2 and message in captured and len(captured.splitlines()) == 1


def test_a_list_can_be_filtered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "s[sd]*"]) == 0
    names = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ") and line[2] != " "]
    assert names == ["sds", "ssd", "sdi"]


def test_settings_are_those_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--method", "sds"]) == 0
    printed = capsys.readouterr().out
    assert cli.main(["--settings", "--method", "sds"]) == 0
    assert printed == capsys.readouterr().out and "name: sds\n" in printed
