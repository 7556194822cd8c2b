"""Batches in one process: finished runs are kept, unfinished ones resumed, failures set aside."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small_batch import WORDS, glb_files, small_config

from steindreamer.pipelines import generate
from steindreamer.pipelines.batches import worker
from steindreamer.pipelines.batches.settings import folder_name
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.lock import owned

ROOT = Path(__file__).parents[3]
PROMPTS = ("a red mug", "a blue chair", "a green car")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    """The assets of single runs, each with a prior of its own, by folder name."""
    out = tmp_path_factory.mktemp("single")
    for prompt in PROMPTS:
        config = small_config(prompt)
        generate(config, out / "runs" / folder_name(config))
    return glb_files(out)


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
