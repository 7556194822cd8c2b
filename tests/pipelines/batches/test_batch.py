"""Batches in one process: finished runs are kept, unfinished ones resumed, failures set aside."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from PIL import Image
from small_batch import WORDS, glb_files, small_config, small_images

from steindreamer.pipelines import RunConfig, generate
from steindreamer.pipelines.batches import worker
from steindreamer.pipelines.batches.settings import folder_name
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.runs import runner
from steindreamer.pipelines.runs.lock import owned

ROOT = Path(__file__).parents[3]
COLORS, KINDS = ("red", "blue", "green", "yellow", "white"), ("mug", "chair", "car", "boat", "lamp", "hat")
PROMPTS = tuple(f"a {color} {kind}" for color in COLORS for kind in KINDS)
REFUSED = "a xylophone"
"""The last row."""
KILLED, STOPPED, FULL, USED = PROMPTS[2], PROMPTS[8], PROMPTS[14], PROMPTS[20]
"""Prompts at whose runs the driver is killed and stopped, the disk is full, and another process holds the folder."""
BUDGETS = {prompt: 100 + 10 * (index % 3) for index, prompt in enumerate(PROMPTS)}


def row_config(index: int) -> RunConfig:
    """The settings of a row: seeds and face budgets differ."""
    prompt = PROMPTS[index]
    return small_config(prompt, f"export.face_budget={BUDGETS[prompt]}", seed=index)


def batch(prompts: Path, out: Path, *words: str) -> int:
    return main(["batch", str(prompts), "--out", str(out), *WORDS, *words])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def folder_of(prompt: str) -> str:
    return folder_name(row_config(PROMPTS.index(prompt)))


def killed_in(prompts: Path, out: Path, prompt: str) -> None:
    """Start a batch in a process of its own, and kill it once the run of the prompt has a checkpoint."""
    command = [sys.executable, str(ROOT / "pipelines" / "batch.py"), str(prompts), "--out", str(out), *WORDS]
    threads = {"OMP_NUM_THREADS": torch.get_num_threads(), "NUMBA_NUM_THREADS": numba.get_num_threads()}
    environment = os.environ | {name: str(count) for name, count in threads.items()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    deadline = time.monotonic() + 240
    while not list((out / "runs" / folder_of(prompt)).glob("checkpoints/*.json")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.002)
    process.kill()
    process.communicate()


@dataclass(frozen=True)
class Calls:
    """A batch of 30 prompts that was killed, stopped, and hit by two faults of the machine, after its last call."""

    out: Path
    prompts: Path
    statuses: list[int]
    """Exit status of every call after the kill."""
    made: list[list[str]]
    """Folders of the runs that each of these calls has started or resumed."""
    loaded: list[int]
    """Number of times that each of these calls has loaded a prior."""
    finished: list[list[str]]
    """Prompts in batch.jsonl after the kill, and after each of these calls."""
    failures: list[list[str]]
    """Messages in failed.jsonl after each of these calls."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    folder = tmp_path_factory.mktemp("batch")
    prompts, out = folder / "prompts.csv", folder / "out"
    rows = [f"{prompt},{index},{BUDGETS[prompt]}" for index, prompt in enumerate(PROMPTS)]
    prompts.write_text("\n".join(["prompt,seed,export.face_budget", *rows, f"{REFUSED},,"]))
    found = Calls(out, prompts, [], [], [], [], [])
    write, generate, load = runner.write_checkpoint, worker.generate, worker.load_prior

    def faulty(run: Path, *arguments: Any) -> None:
        if FULL.replace(" ", "-") in str(run):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run))
        write(run, *arguments)

    def stopping(run: Path, *arguments: Any) -> None:
        write(run, *arguments)
        if STOPPED.replace(" ", "-") in str(run):
            os.kill(os.getpid(), signal.SIGTERM)

    def call(checkpoint: Callable[..., None]) -> None:
        made, loaded = list[str](), list[object]()
        with pytest.MonkeyPatch.context() as patch:
            small_images(patch)
            patch.setattr(runner, "write_checkpoint", checkpoint)
            patch.setattr(worker, "load_prior", lambda config: loaded.append(config) or load(config))
            patch.setattr(worker, "generate", lambda *a, **b: made.append(a[1].name) or generate(*a, **b))
            found.statuses.append(batch(prompts, out))
        found.made.append(made)
        found.loaded.append(len(loaded))
        found.finished.append([record["prompt"] for record in lines(out / "batch.jsonl")])
        found.failures.append([failure["message"] for failure in lines(out / "failed.jsonl")])

    killed_in(prompts, out, KILLED)
    found.finished.append([record["prompt"] for record in lines(out / "batch.jsonl")])
    call(stopping)
    used = out / "runs" / folder_of(USED)
    used.mkdir()
    with owned(used):
        call(faulty)
    call(write)
    call(write)
    return found


@pytest.mark.slow
def test_no_prompt_is_lost_and_none_is_made_twice(calls: Calls) -> None:
    killed, stopped, full, used = map(PROMPTS.index, (KILLED, STOPPED, FULL, USED))
    folders = [folder_of(prompt) for prompt in PROMPTS]
    assert calls.statuses == [128 + signal.SIGTERM, 1, 1, 1]
    assert calls.made == [
        folders[killed : stopped + 1],
        folders[stopped:],
        [folders[full], folders[used]],
        [],
    ]
    assert calls.loaded == [1, 1, 1, 0], "the prior stays loaded between the runs"
    others = [prompt for prompt in PROMPTS if prompt not in (FULL, USED)]
    assert calls.finished == [list(PROMPTS[:killed]), list(PROMPTS[:stopped]), others, list(PROMPTS), list(PROMPTS)]
    _, (disk, lock, refused), *last = calls.failures
    assert "No space left" in disk and "is in use" in lock and "names no object" in refused
    assert last == [[refused]] * 2
    log = (calls.out / "batch.log").read_text()
    assert all(log.count(f"'{prompt}': ") == 1 for prompt in others)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", [PROMPTS[1], KILLED, STOPPED, FULL])
def test_an_asset_of_a_batch_equals_that_of_a_single_run(calls: Calls, prompt: str, tmp_path: Path) -> None:
    """An undisturbed row and those of the interrupted runs; each single run loads a prior of its own."""
    config = row_config(PROMPTS.index(prompt))
    with pytest.MonkeyPatch.context() as patch:
        small_images(patch)
        generate(config, tmp_path / "runs" / folder_name(config))
    (single,) = glb_files(tmp_path).values()
    assert glb_files(calls.out)[folder_name(config)] == single


@pytest.mark.slow
def test_the_overview_has_all_rows(calls: Calls) -> None:
    out, records = calls.out, lines(calls.out / "batch.jsonl")
    page = (out / "index.html").read_text()
    for index, record in enumerate(records):
        asset = out / record["asset"]
        assert record["line"] == index + 2 and record["seed"] == index and record["prior_calls"] > 0
        assert record["triangles"] <= BUDGETS[record["prompt"]] and record["audit"]["errors"] == 0
        assert (out / "assets" / f"{record['prompt'].replace(' ', '-')}.glb").samefile(asset)
        assert f"{record['folder']}/report.html" in page
    assert len(list((out / "assets").iterdir())) == len(PROMPTS) and REFUSED in page
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (6 * 160, 5 * 190)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS[:3]))
    return path


@pytest.mark.slow
def test_shards_are_collected_from_the_run_folders(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are copies of finished ones."""
    out, prompts = tmp_path / "out", tmp_path / "prompts.csv"
    prompts.write_text("".join(calls.prompts.read_text().splitlines(keepends=True)[:4]))

    def copied(config: RunConfig, folder: Path, **options: Any) -> None:
        shutil.copytree(calls.out / "runs" / folder.name, folder)

    def failing(*arguments: Any, **options: Any) -> None:
        raise UserError("no luck today")

    monkeypatch.setattr(worker, "generate", failing)
    assert batch(prompts, out, "--shard", "1/2") == 1
    monkeypatch.setattr(worker, "generate", copied)
    assert batch(prompts, out, "--shard", "2/2") == 0
    assert [record["prompt"] for record in lines(out / "batch-2-of-2.jsonl")] == [PROMPTS[1]]
    assert not (out / "index.html").exists()
    assert batch(prompts, out, "--collect") == 0
    failed = lines(out / "failed.jsonl")
    assert [(each["line"], each["message"]) for each in failed] == [(2, "no luck today"), (4, "no luck today")]

    assert batch(prompts, out, "--shard", "1/2") == 0
    assert batch(prompts, out, "--collect") == 0
    assert [record["prompt"] for record in lines(out / "batch.jsonl")] == list(PROMPTS[:3])
    assert glb_files(out).items() < glb_files(calls.out).items() and len(list((out / "assets").iterdir())) == 3
    assert not (out / "failed.jsonl").read_text()

    red_mug, red_chair, _ = (out / "assets" / f"{prompt.replace(' ', '-')}.glb" for prompt in PROMPTS[:3])
    others = [out / "assets" / "mine.glb", red_chair]
    for other in others:
        other.unlink(missing_ok=True)
        other.write_bytes(b"of the user")
    prompts.write_text("".join(calls.prompts.read_text().splitlines(keepends=True)[:2]))
    assert batch(prompts, out, "--collect") == 0
    assert set((out / "assets").iterdir()) == {red_mug, *others}, "the asset of the last row is gone"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export.face_budgt=3"], "did you mean 'face_budget'?"),
        (["--shard", "3/2"], "--shard is '3/2'; number/count is accepted"),
        (["--workers", "0"], "--workers is 0; 1 or more"),
        (["--gpus-per-run", "1"], "need --workers 2 or more, or --address"),
        (["--workers", "2", "--gpus-per-run", "1.5"], "--gpus-per-run is 1.5; 0 to 1, or a whole number"),
    ],
)
def test_errors_are_one_line_and_leave_no_folder(
    words: list[str], message: str, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["batch", str(prompts), "--out", str(tmp_path / "out"), *words]) in (1, 2)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_files_is_refused(
    prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert batch(prompts, tmp_path) == 1
    assert "is not empty and holds no batch" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]
