"""The examples run as they stand."""

from __future__ import annotations

import math
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill import NoiseRequest, NoiseSchedule, NoisySample
from steindreamer.distill.priors.diffusion import DiffusersPrior, FamilyOptions
from steindreamer.pipelines.cli.run import main, parser
from steindreamer.pipelines.config.plugins import load_plugins
from steindreamer.representations import Cameras, write_gaussian_ply

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = [
    "stages.coarse.steps=2", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "prior.name=world",
    "prior.objects=1",
    "stages.geometry.steps=2", "stages.geometry.resolution=16", "stages.geometry.representation.resolution=16",
    "stages.texture.steps=2", "stages.texture.resolution=16",
    "representation.samples=24",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=400", "output.image_size=16", "output.turntable_frames=2",
]  # fmt: skip
QUICK = [
    "--prompt", "a red mug", "--no-refine", "--quiet", "stages.coarse.steps=2", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16", "representation.count=200", "output.turntable_frames=0",
    "output.image_size=16", "export.enabled=false",
]  # fmt: skip


def _run(example: str, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run an example as a script; returns its names."""
    monkeypatch.setattr(sys, "argv", [example, *arguments])
    return runpy.run_path(str(EXAMPLES / f"{example}.py"), run_name="__main__")


def test_the_table_lists_every_example() -> None:
    rows = re.findall(r"^\| \[.*\]\((.*\.py)\).* \| `(.*)` \|$", (EXAMPLES / "README.md").read_text(), re.M)
    assert [file for file, _ in rows] == sorted(path.name for path in EXAMPLES.glob("*.py"))
    for file, command in rows:
        words = shlex.split(command)
        assert f"examples/{file}" in words
        if words[1] == "pipelines/run.py":
            assert parser().parse_intermixed_args(words[2:]).plugin == [Path("examples") / file]


def test_text_to_3d_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["prior.name=world", "prior.objects=1", "stages.coarse.steps=2"]
    _run("01_text_to_3d", "a red mug", "--quick", *small, monkeypatch=monkeypatch)
    printed = capsys.readouterr().out
    assert "scene: Gaussians, a torch module with 7000 parameters\nmesh: " in printed
    assert "asset: runs/first/asset/asset.glb\n" in printed and "last step logged: 2, loss " in printed


def test_voxels_become_an_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _run("02_your_representation", "a red mug", *TINY, monkeypatch=monkeypatch)
    assert capsys.readouterr().out == "runs/voxels/asset/asset.glb\n"
    mesh = trimesh.load(tmp_path / "runs/voxels/asset/asset.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and 100 < len(mesh.faces) <= 400


def test_control_variates_in_2d_have_exact_means(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(EXAMPLES / "04_control_variate_in_2d.py"))
    assert example["main"](seeds=5, learn=400, draws=4000) == 0
    printed = capsys.readouterr().out
    variance = {name: float(value) for name, value in re.findall(r"^(\S.*?) +([\d.]+) ± ", printed, re.M)}
    assert variance["SDS (noise, coefficient 1)"] == 1 and max(list(variance.values())[1:]) < 0.3
    assert (
        variance["informed Stein term, fitted"] < variance["noise, fitted"] < variance["uninformed Stein term, fitted"]
    )
    example["main"].__globals__["BIASED"] = ""
    assert example["main"](seeds=5, learn=400, draws=4000) == 1, "the printed form's bias is seen"
    assert capsys.readouterr().out.endswith("biased: informed Stein term as printed\n")


def test_gaussians_are_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def exported(*arguments: str) -> trimesh.Trimesh:
        small = ["--detail", "32", "--texture", "64", "--faces", "300", "--views", "16"]
        names.update(_run("05_export_your_gaussians", *arguments, *small, monkeypatch=monkeypatch))
        assert capsys.readouterr().out.startswith("runs/exported/asset.glb\n")
        mesh = trimesh.load(tmp_path / "runs/exported/asset.glb", force="mesh")
        assert isinstance(mesh, trimesh.Trimesh)
        mesh.merge_vertices(merge_tex=True, merge_norm=True)
        assert mesh.is_watertight and len(mesh.faces) <= 300
        return mesh

    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    assert exported("--height", "0.4").extents[1] == pytest.approx(0.4)
    scene = names["ball"]()
    with torch.no_grad():
        scene.means.mul_(3).add_(torch.tensor([5.0, 0.0, 0.0]))
        scene.log_scales.add_(math.log(3))
    write_gaussian_ply(scene, tmp_path / "scan.ply")
    mesh = exported("scan.ply")
    assert mesh.extents == pytest.approx(2 * 3 * 0.6, rel=0.15), "the file's own size"
    assert mesh.bounds.mean(0) == pytest.approx([5, 0, 0], abs=0.2)


@pytest.mark.parametrize(
    ("example", "use"),
    [
        ("03_your_prior", ["--prior", "one-image", "prior.size=16"]),
        ("06_your_method", ["--method", "calm", "--prior", "world", "prior.objects=1"]),
        (
            "08_your_control_variate",
            ["--prior", "world", "prior.objects=1", "method.control_variates.terms=[spectral,brightness,shifted]"],
        ),
    ],
)
def test_a_component_of_one_file_is_used_by_a_run(
    example: str, use: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin = ["--plugin", str(EXAMPLES / f"{example}.py")]
    assert main([*plugin, *use, *QUICK, "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert '"loss":' in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_a_family_of_one_file_is_a_prior(tmp_path: Path) -> None:
    """Its U-Net has an input more than Stable Diffusion's, without which it cannot be called."""
    load_plugins([EXAMPLES / "07_your_family.py"])
    model = save_tiny_model(tmp_path, "LatentConsistencyModelPipeline")
    cameras = Cameras.orbit([0.0, 90.0], [0.0, 20.0], height=8)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sample: NoisySample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.tensor([100, 700]))

    def predicted(guidance: float) -> torch.Tensor:
        prior = DiffusersPrior(str(model), torch.device("cpu"), options=FamilyOptions(guidance), cache_text=False)
        condition = prior.condition(prior.embed("a red mug"), cameras, torch.ones(2, 3))
        (out,) = prior.predict_noise([NoiseRequest(sample)], condition)
        return out

    found = predicted(2.0)
    assert found.shape == noise.shape and bool(found.isfinite().all())
    assert not torch.allclose(found, predicted(9.0)), "the guidance scale is an input of the network"
