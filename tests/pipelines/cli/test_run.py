"""A whole small run: its files, another asset from the same scene, and failures that keep what was done."""

from __future__ import annotations

import html
import json
import math
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import CHROMIUM, browser

from steindreamer import atomic_file
from steindreamer.pipelines import load_config
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.export.previews import sheet_cameras
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.pipelines.runs import folder as run_folder
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.folder import choose_folder
from steindreamer.pipelines.runs.manifest import FILES, FOLDERS
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.pipelines.runs.runner import provenance
from steindreamer.pipelines.runs.watchdog import FILE_NAME

TINY = [
    "--prompt", "a red mug", "--no-refine", "stages.coarse.steps=4", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16",
    "representation.count=300", "representation.opacity=0.5", "prior.name=world", "prior.objects=1",
    "stages.coarse.probe_every=1",
    "output.log_every=2", "output.image_size=16", "output.turntable_frames=2", "output.preview_every=2",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.face_budget=400",
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mug"
    assert main(["--quiet", "--out", str(folder), *TINY]) == 0
    return folder


def test_everything_written_is_known_and_linked(finished: Path) -> None:
    # A batch audits the asset.
    assert {path.name for path in finished.iterdir()} == {*FILES, *FOLDERS} - {FILE_NAME, "audit.json"}
    page = (finished / "report.html").read_text()
    links = re.findall(r'(?:href|src)="(?!data:)([^"]+)"', page)
    assert {"asset/asset.glb", "asset/asset.ply", "asset/asset.png", "turntable.webp"} <= set(links)
    assert all((finished / link).is_file() for link in links) and not re.search(r'src="(?!data:)', page)
    assert page.count("<polyline") == 4, "loss, the variance of both estimators, and seconds"


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_the_report_opens_offline_with_the_asset_in_it(finished: Path, tmp_path: Path) -> None:
    """Moved away from the run's folder, the page still shows everything."""
    alone = tmp_path / "alone.html"
    shutil.copy(finished / "report.html", alone)
    export = json.loads((finished / "summary.json").read_text())["exports"][0]
    with browser(tmp_path) as page:
        page.open(f"{alone.as_uri()}#mode=clay&yaw=200", 360, 740, phone=True)
        page.until("document.body.dataset.frames > 0")
        data = page.evaluate("({...document.body.dataset})")
        assert (data["mode"], data["triangles"]) == ("clay", str(export["faces"])) and "errors" not in data
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        assert [url for url in page.requests if not url.startswith("data:")] == [alone.as_uri()]
        assert not page.problems


def test_the_report_names_a_command_that_repeats_the_run(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = re.findall(r"<pre>steindreamer run (.*)</pre>", (finished / "report.html").read_text())
    monkeypatch.chdir(finished)
    assert main([*shlex.split(html.unescape(command)), "--settings"]) == 0
    assert capsys.readouterr().out == (finished / "config.yaml").read_text()


def test_how_the_prompt_is_read_is_one_line_of_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, prompt = tmp_path / "run", "A hyperrealistic crimson cup, side view"
    given = [*TINY, "--prompt", prompt, "export.enabled=false", "stages.coarse.steps=1", "output.turntable_frames=0"]
    assert main(["--out", str(folder), *given, "prior.strict_words=true"]) == 1
    captured = capsys.readouterr()
    assert "'hyperrealistic'" in captured.err and len(captured.err.splitlines()) == 1 and not folder.exists()
    assert main(["--out", str(folder), *given]) == 0
    said = capsys.readouterr().out
    assert said.count("the prompt is read as 'a red mug'; ignored: 'hyperrealistic'\n") == 1
    assert f"prompt: {prompt}\n" in (folder / "config.yaml").read_text()
    assert f"<h1>{prompt}</h1>" in (folder / "report.html").read_text()


def test_the_asset_names_the_weights_it_was_distilled_from() -> None:
    pipeline = Pipeline.__new__(Pipeline)
    pipeline.config = load_config("cpu")
    pipeline.prior = pipeline.config.prior.build(torch.device("cpu"))
    made = provenance(pipeline)
    assert made["prior"] == "tiny" and re.fullmatch("[0-9a-f]{64}", made["prior_sha256"])
    pipeline.prior = load_config("cpu", prior="world").prior.build(torch.device("cpu"))
    assert "prior_sha256" not in provenance(pipeline)


def test_the_same_scene_as_another_asset(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    scene = (folder / "checkpoints" / "000004.safetensors").read_bytes()
    asset = (folder / "asset" / "asset.glb").read_bytes()
    assert main(["--resume", "--out", str(folder), "export.face_budget=100"]) == 1
    error = capsys.readouterr().err
    assert "asset.glb was made with different settings (export.face_budget); add --overwrite" in error
    assert len(error.splitlines()) == 1 and (folder / "asset" / "asset.glb").read_bytes() == asset
    assert main(["--resume", "--out", str(folder), "--overwrite", "export.face_budget=100"]) == 0
    assert "resuming after step 4" in capsys.readouterr().out
    assert json.loads((folder / "summary.json").read_text())["exports"][0]["faces"] <= 100
    assert "face_budget: 100" in (folder / "config.yaml").read_text()
    assert (folder / "checkpoints" / "000004.safetensors").read_bytes() == scene
    assert main(["--resume", "--out", str(folder), "stages.coarse.steps=8"]) == 1
    assert "different settings (stages.coarse.steps)" in capsys.readouterr().err


def test_a_run_without_an_asset_and_one_after_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *TINY, "export.enabled=false", "export.source=mesh"]) == 0
    assert f"done in {json.loads((folder / 'summary.json').read_text())['seconds']:.0f} s: {folder}" in (
        capsys.readouterr().out
    )
    assert [path.name for path in (folder / "asset").iterdir()] == ["asset.ply"]
    assert json.loads((folder / "summary.json").read_text())["exports"] == []
    page = (folder / "report.html").read_text()
    links = re.findall(r'(?:href|src)="(?!data:)([^"]+)"', page)
    assert "previews/final.png" in links and all((folder / link).is_file() for link in links)
    assert "The asset" not in page and "triangles" not in page
    assert main(["--quiet", "--resume", "--out", str(folder), "export.enabled=true", "export.source=auto"]) == 0
    assert (folder / "asset" / "asset.glb").is_file()
    assert main(["--resume", "--out", str(folder), "refine=true", "export.enabled=false"]) == 2
    assert "export.enabled=false needs refine=false" in capsys.readouterr().err


@pytest.mark.parametrize("look", ["center", "outward"])
def test_images_of_a_scene_around_the_cameras_are_taken_inside(look: Any) -> None:
    views = ViewsConfig(
        inside=True, look=look, distance=[0.2, 2.0], elevation=[-10.0, 30.0], field_of_view=[50.0, 70.0]
    )
    cameras = sheet_cameras(16, views)
    assert torch.allclose(cameras.position.norm(dim=1), torch.tensor(0.2))
    toward = (cameras.forward * cameras.position).sum(1) / 0.2
    assert torch.allclose(toward, torch.tensor(-1.0 if look == "center" else 1.0))
    assert torch.allclose(cameras.elevation, torch.tensor([10.0] * 4 + [30.0]), atol=1e-3)
    assert torch.allclose((cameras.azimuth[:4].diff()) % 360, torch.tensor(90.0), atol=1e-3)
    assert float(cameras.intrinsics[0, 1, 1]) == pytest.approx(8 / math.tan(math.radians(30)), rel=1e-5)
    outside = sheet_cameras(16, ViewsConfig())
    assert float(outside.position.norm(dim=1).min()) > 1 and torch.equal(outside.position, sheet_cameras(16).position)


@pytest.mark.parametrize("broken", ["previews", "checkpoints", "asset", "report.html"])
def test_what_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    """A disk that fills up at any stage of the run."""
    real = os.replace

    def full(source: Path, target: Path) -> None:
        if broken in str(target):
            raise OSError(28, "No space left on device", str(source))
        real(source, target)

    monkeypatch.setattr(atomic_file.os, "replace", full)
    folder = tmp_path / "run"
    assert main(["--quiet", "--out", str(folder), *TINY, "output.checkpoint_every=1"]) == 1
    error = capsys.readouterr().err
    assert "No space left" in error and broken in error and "--resume" in error and len(error.splitlines()) == 1
    monkeypatch.undo()
    assert main(["--quiet", "--out", str(folder), "--resume"]) == 0


def test_an_empty_scene_is_one_line_and_keeps_its_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(["--quiet", "--out", str(folder), *TINY, "representation.opacity=0.0001"]) == 1
    error = capsys.readouterr().err
    assert "cannot export the asset: the scene is empty" in error and len(error.splitlines()) == 1
    assert checkpoint_steps(folder / "checkpoints") == [4] and (folder / "turntable.webp").exists()


def test_folders_are_numbered_and_the_newest_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "ROOT", tmp_path)
    assert choose_folder("A red mug!", None, existing=False) == tmp_path / "a-red-mug"
    (tmp_path / "a-red-mug").mkdir()
    (tmp_path / "a-red-mug-2").mkdir()
    assert choose_folder("a red mug", None, existing=False) == tmp_path / "a-red-mug-3"
    assert choose_folder("a red mug", None, existing=True) == tmp_path / "a-red-mug-2"
    assert choose_folder("a red mug", tmp_path / "x", existing=True) == tmp_path / "x"


def test_lists_fit_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  gaussians" in lines and "  cpu" in lines
    assert max(map(len, lines)) <= 60
