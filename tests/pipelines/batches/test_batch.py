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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
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
PROMPTS = ("a red mug", "a blue chair", "a green car")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of single runs, each with a prior of its own."""
    out = tmp_path_factory.mktemp("single")
    with pytest.MonkeyPatch.context() as patch:
        small_images(patch)
        for prompt in PROMPTS:
            config = small_config(prompt)
            generate(config, out / "runs" / folder_name(config))
    return out


@pytest.fixture
def undisturbed(single: Path) -> Mapping[str, bytes]:
    """The assets of the single runs by folder name."""
    return glb_files(single)


@pytest.fixture(autouse=True)
def quick_images(monkeypatch: pytest.MonkeyPatch) -> None:
    small_images(monkeypatch)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS))
    return path


def batch(prompts: Path, out: Path, *words: str) -> int:
    return main(["batch", str(prompts), "--out", str(out), *WORDS, *words])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_equals_single_runs_and_keeps_what_is_finished(
    undisturbed: Mapping[str, bytes], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, made = tmp_path / "out", []
    loaded, load = [], worker.load_prior
    monkeypatch.setattr(worker, "load_prior", lambda config: loaded.append(config) or load(config))
    with prompts.open("a") as file:
        file.write("\na xylophone\n")
    assert batch(prompts, out) == 1
    assert glb_files(out) == undisturbed
    assert len(loaded) == 1
    records = lines(out / "batch.jsonl")
    assert [record["prompt"] for record in records] == list(PROMPTS)
    for record in records:
        asset = out / record["asset"]
        assert asset.read_bytes() == undisturbed[Path(record["folder"]).name]
        assert record["prior_calls"] > 0 and record["triangles"] <= 200 and record["audit"]["errors"] == 0
        assert (out / "assets" / f"{record['prompt'].replace(' ', '-')}.glb").samefile(asset)
    (failed,) = lines(out / "failed.jsonl")
    assert failed["line"] == 4 and "names no object" in failed["message"]
    page = (out / "index.html").read_text()
    assert all(f"{record['folder']}/report.html" in page for record in records) and "xylophone" in page
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.size == (320, 380)

    monkeypatch.setattr(worker, "generate", lambda *a, **b: made.append(a))
    assert batch(prompts, out) == 1
    assert not made and lines(out / "batch.jsonl") == records


def start(prompts: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "pipelines" / "batch.py"), str(prompts), "--out", str(out), *WORDS, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: subprocess.Popen[str], pattern: str, out: Path) -> Path:
    """Wait until a file appears; returns its path."""
    deadline = time.monotonic() + 240
    while not (found := sorted(out.glob(pattern))):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.005)
    return found[0]


@pytest.mark.slow
def test_a_stopped_and_a_killed_batch_go_on(undisturbed: Mapping[str, bytes], prompts: Path, tmp_path: Path) -> None:
    """SIGTERM in the first run, then SIGKILL in the second."""
    out = tmp_path / "out"
    process = start(prompts, out)
    wait_for(process, "runs/a-red-mug-*/checkpoints/*.json", out)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 128 + signal.SIGTERM and "run the same command again" in output, output
    assert not (out / "batch.jsonl").read_text() and len(list(out.glob("runs/*"))) == 1

    process = start(prompts, out)
    wait_for(process, "runs/a-blue-chair-*/checkpoints/*.json", out)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert [record["prompt"] for record in lines(out / "batch.jsonl")] == ["a red mug"]
    assert not list(out.glob("runs/*/summary.json"))[1:]

    assert batch(prompts, out) == 0
    assert glb_files(out) == undisturbed and len(lines(out / "batch.jsonl")) == 3


def test_a_full_disk_and_a_folder_in_use_cost_one_row_each(
    undisturbed: Mapping[str, bytes], prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write = runner.write_checkpoint

    def full(folder: Path, *arguments: Any) -> None:
        if "blue-chair" in str(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        write(folder, *arguments)

    used = out / "runs" / folder_name(small_config("a green car"))
    used.mkdir(parents=True)
    (out / "batch.json").write_text("{}")
    with monkeypatch.context() as patch, owned(used):
        patch.setattr(runner, "write_checkpoint", full)
        assert batch(prompts, out) == 1
    assert [record["prompt"] for record in lines(out / "batch.jsonl")] == ["a red mug"]
    disk, lock = (failure["message"] for failure in lines(out / "failed.jsonl"))
    assert "No space left" in disk and "is in use" in lock
    assert batch(prompts, out) == 0
    assert glb_files(out) == undisturbed and not (out / "failed.jsonl").read_text()


def test_shards_are_collected_from_the_run_folders(
    single: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs are copies of finished ones."""
    out = tmp_path / "out"

    def copied(config: RunConfig, folder: Path, **options: Any) -> None:
        shutil.copytree(single / "runs" / folder.name, folder)

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
    assert [(each["line"], each["message"]) for each in failed] == [(1, "no luck today"), (3, "no luck today")]

    assert batch(prompts, out, "--shard", "1/2") == 0
    assert batch(prompts, out, "--collect") == 0
    assert [record["prompt"] for record in lines(out / "batch.jsonl")] == list(PROMPTS)
    assert glb_files(out) == glb_files(single) and len(list((out / "assets").iterdir())) == 3
    assert not (out / "failed.jsonl").read_text()


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
