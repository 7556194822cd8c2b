"""The examples run as they stand."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
import trimesh
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill import NoiseRequest, NoiseSchedule, NoisySample
from steindreamer.distill.priors.diffusion import DiffusersPrior, FamilyOptions
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.plugins import load_plugins
from steindreamer.representations import Cameras

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = [
    "stages.coarse.steps=2", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "prior.name=world",
    "prior.objects=1",
    "stages.geometry.steps=2", "stages.geometry.resolution=16", "stages.geometry.representation.resolution=16",
    "stages.texture.steps=2", "stages.texture.resolution=16",
    "representation.samples=24",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.face_budget=400", "output.image_size=16", "output.turntable_frames=2",
]  # fmt: skip
QUICK = [
    "--prompt", "a red mug", "--no-refine", "--quiet", "stages.coarse.steps=2", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16", "representation.count=200", "output.turntable_frames=0",
    "output.image_size=16", "export.enabled=false",
]  # fmt: skip


def test_voxels_become_an_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["voxels.py", "a red mug", *TINY])
    runpy.run_path(str(EXAMPLES / "voxels.py"), run_name="__main__")
    assert capsys.readouterr().out == "runs/voxels/asset/asset.glb\n"
    mesh = trimesh.load(tmp_path / "runs/voxels/asset/asset.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and 100 < len(mesh.faces) <= 400


@pytest.mark.parametrize(
    ("example", "use"),
    [
        ("calm_method", ["--method", "calm", "--prior", "world", "prior.objects=1"]),
        (
            "brightness",
            ["--prior", "world", "prior.objects=1", "method.control_variates.terms=[spectral,brightness,shifted]"],
        ),
        ("one_image", ["--prior", "one-image", "prior.size=16"]),
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
    load_plugins([EXAMPLES / "latent_consistency.py"])
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
