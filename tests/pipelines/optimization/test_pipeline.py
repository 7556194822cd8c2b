"""The stages of a run, joined: what is known before the first step, and what is handed over."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import trimesh

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.runs.pipeline import Pipeline

SMALL = [
    "prompt=a red mug", "prior.name=world", "prior.objects=1", "representation.count=300", "representation.opacity=0.5",
    *(f"stages.{name}.{setting}" for name in ("coarse", "geometry", "texture") for setting in (
        "steps=2", "resolution=16", "warmup_resolution=16", "probe_every=0"
    )),
    "stages.geometry.representation={name: dmtet, resolution: 16, color: {grid: {levels: 2, log2_size: 10}}}",
    "output.image_size=16",
    "output.turntable_frames=0", "output.preview_every=0", "export.resolution=24", "export.view_size=48",
    "export.cameras=12", "export.texture_size=128", "export.face_budget=400", "export.tolerance=0", "export.padding=1",
    "export.lods=[1]", "export.hulls=0",
]  # fmt: skip


def _config(*overrides: str) -> RunConfig:
    return load_config("cpu", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "mug"
    assert main(["--quiet", "--out", str(folder), *SMALL]) == 0
    return folder


def test_an_empty_scene_names_the_way_out() -> None:
    pipeline = Pipeline(_config("representation.opacity=0.0001"))
    with pytest.raises(
        UserError, match=r"cannot convert the scene to dmtet for stage 'geometry': the scene is empty.*--no-refine"
    ):
        pipeline.following(pipeline.first())


@pytest.mark.parametrize(
    ("setting", "status", "message"),
    [
        ("stages.geometry.representation.backend=crayon", 2, "stages.geometry.representation.backend is 'crayon'"),
        ("stages.texture.representation.backend=crayon", 2, "stages.texture.representation.backend is 'crayon'"),
        ("stages.texture.representation.size=100", 2, "stages.texture.representation.size is 100"),
        ("stages.geometry.representation.resolution=1", 2, "stages.geometry.representation.resolution"),
        ("stages.geometry.regularizers.texture_smoothness=1", 2, "unknown regularizer regularizers.texture_smoothness"),
        ("stages.texture.regularizers.eikonal=1", 2, "unknown regularizer regularizers.eikonal"),
        ("stages.texture.method.control_variates.terms=[dept]", 2, "dept"),
    ],
)
def test_what_a_later_stage_refuses_is_known_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, status: int, message: str
) -> None:
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *SMALL, setting]) == status
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not folder.exists()


def test_a_run_says_what_it_hands_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "run"), *SMALL, "export.source=field", "export.color_source=field"]) == 0
    out = capsys.readouterr().out
    assert "stage 'geometry': converting Gaussians to dmtet" in out
    assert "stage 'texture': converting DmtetMesh to textured_mesh" in out
    psnr = [float(value) for value in re.findall(r"conversion: PSNR (\S+) dB between the scenes before and after", out)]
    assert len(psnr) == 2 and all(10 < value < 60 for value in psnr), "so small a scene is coarse; see test_conversion"


@pytest.mark.parametrize("source", ["auto", "field", "renders"])
def test_the_source_is_that_of_the_first_scene(source: str) -> None:
    pipeline = Pipeline(_config(f"export.source={source}"))
    first = pipeline.first()
    assert pipeline.export_settings(first) == pipeline.config.export
    second = pipeline.following(first)
    assert second is not None and pipeline.export_settings(second).source == "auto"
    third = pipeline.following(second)
    assert third is not None and pipeline.following(third) is None
    assert (first.total, second.total, third.total) == (0, 2, 4)


def test_a_stage_without_a_representation_goes_on_with_the_scene(caplog: pytest.LogCaptureFixture) -> None:
    more = "stages.more={representation: null, steps: 1}"
    pipeline = Pipeline(_config(more, "refine=false"))
    assert pipeline.following(pipeline.first()) is None, "it would go on with the texture"
    pipeline = Pipeline(_config("stages.texture.steps=0", more))
    stage = pipeline.following(pipeline.first())
    assert stage is not None
    stage.state.skipped = 3
    caplog.clear()
    caplog.set_level("INFO", logger="steindreamer")
    following = pipeline.following(stage)
    assert following is not None and following.representation is stage.representation
    assert following.skipped == 3 and following.name == "more" and not caplog.messages


@pytest.mark.parametrize(("setting", "faces", "size"), [("face_budget=150", 150, 128), ("texture_size=256", 400, 256)])
def test_a_finished_texture_as_another_asset(
    finished: Path, tmp_path: Path, setting: str, faces: int, size: int
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    before = trimesh.load(folder / "asset" / "asset.glb", force="mesh")
    assert main(["--quiet", "--resume", "--overwrite", "--out", str(folder), f"export.{setting}"]) == 0
    after = trimesh.load(folder / "asset" / "asset.glb", force="mesh")
    assert isinstance(before, trimesh.Trimesh) and isinstance(after, trimesh.Trimesh)
    assert 150 < len(before.faces) <= 400 and 100 < len(after.faces) <= faces
    assert before.visual.material.baseColorTexture.size == (128, 128)  # pyright: ignore
    assert after.visual.material.baseColorTexture.size == (size, size)  # pyright: ignore
    assert json.loads((folder / "summary.json").read_text())["exports"][0]["faces"] == len(after.faces)


def test_refinement_may_follow_later_but_not_be_undone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert main(["--out", str(folder), *SMALL, "--no-refine"]) == 0
    assert "conversion" not in capsys.readouterr().out
    assert main(["--out", str(folder), "--resume", "refine=true"]) == 1
    assert "asset.glb was made with different settings (refine); add --overwrite" in capsys.readouterr().err
    assert main(["--out", str(folder), "--resume", "--overwrite", "refine=true"]) == 0
    out = capsys.readouterr().out
    assert "resuming after step 2, in stage 'coarse'" in out and out.count("conversion") == 2
    assert main(["--out", str(folder), "--resume", "--overwrite", "--no-refine"]) == 1
    assert "the checkpoint is from stage 'texture', but this run has: coarse" in capsys.readouterr().err
