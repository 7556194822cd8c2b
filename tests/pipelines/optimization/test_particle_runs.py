"""Runs with several particles: every stage carries all of them, the learned score sees all, each becomes an asset."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion_models import save_tiny_model
from torch import Tensor

from steindreamer.distill.learned_score import LearnedScore, LoRABatch
from steindreamer.pipelines import generate, main
from steindreamer.pipelines.comparison.scores import psnr_score
from steindreamer.pipelines.comparison.trial import Record, Trial, run_trial
from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import (
    Cameras,
    Ensemble,
    RenderOutput,
    Representation,
    TriangleMesh,
    particles_of,
)
from steindreamer.world.views import shade

QUICK = [
    "representation.count=300", "representation.opacity=0.5",
    *(f"stages.{name}.{setting}" for name in ("coarse", "geometry", "texture") for setting in (
        "steps=2", "resolution=16", "warmup_resolution=16", "probe_every=0", "views.per_step=2",
    )),
    "stages.geometry.representation={name: dmtet, resolution: 16, color: {grid: {levels: 2, log2_size: 10}}}",
    "output.image_size=16",
    "output.turntable_frames=2", "output.preview_every=0", "export.resolution=24", "export.view_size=48",
    "export.lods=[1]", "export.hulls=0",
    "export.cameras=12", "export.texture_size=128", "export.face_budget=400", "export.padding=1",
    "output.checkpoint_every=1",
]  # fmt: skip
WORLD = ["prompt=a red mug", "prior.name=world", "prior.objects=1"]


def config(*overrides: str) -> RunConfig:
    return load_config("cpu", overrides=[*WORLD, *QUICK, *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run with two particles through all stages, and the kind of scene after each step."""
    folder, kinds = tmp_path_factory.mktemp("run") / "mug", []

    def watch(stage: Stage) -> None:
        particles = particles_of(stage.representation)
        kinds.append(f"{stage.name} {len(particles)} {type(particles[0]).__name__}")

    result = generate(config("particles=2"), folder, watch=watch)
    assert result.mesh is not None and result.asset == folder / "asset" / "asset.glb"
    assert [export.path for export in result.exports[1:]] == [folder / "asset" / "particle_2" / "asset.glb"]
    return folder, "; ".join(dict.fromkeys(kinds))


def test_every_stage_carries_all_particles(finished: tuple[Path, str]) -> None:
    assert finished[1] == "coarse 2 Gaussians; geometry 2 DmtetMesh; texture 2 TexturedMesh"


def test_every_particle_becomes_an_asset(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    one, other = (folder / "asset", folder / "asset" / "particle_2")
    meshes = [trimesh.load(place / "asset.glb", force="mesh") for place in (one, other)]
    first, second = meshes
    assert isinstance(first, trimesh.Trimesh) and isinstance(second, trimesh.Trimesh)
    assert first.is_watertight or len(first.faces) > 50
    assert first.vertices.shape != second.vertices.shape or not (first.vertices == second.vertices).all()
    assert (one / "asset.ply").read_bytes() != (other / "asset.ply").read_bytes()

    summary = json.loads((folder / "summary.json").read_text())
    first, further = summary["exports"]
    assert first["path"].endswith("asset/asset.glb") and further["path"].endswith("particle_2/asset.glb")
    assert further["faces"] == len(second.faces)


def test_images_and_report_show_all_particles(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    with Image.open(folder / "previews" / "final.png") as sheet, Image.open(folder / "turntable.webp") as turn:
        assert sheet.size == (5 * 16, 2 * 3 * 16) and turn.size == (2 * 2 * 16, 16)
        upper, lower = sheet.crop((0, 0, 80, 48)), sheet.crop((0, 48, 80, 96))
        assert upper.tobytes() != lower.tobytes()
    page = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page)
    assert {f"asset/{name}.png" for name in ("asset", "maps", "particle_2/asset", "particle_2/maps")} <= set(sources)
    assert "asset/particle_2/asset.glb" in sources and "Particle 2" in page and page.count("application/base64") == 2
    assert all((folder / source).is_file() for source in sources)


def test_a_resumed_run_ends_in_the_same_bits_and_may_ask_for_other_assets(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    """It loses its last checkpoint and goes on in the middle of the texture stage."""
    whole, broken = finished[0], tmp_path / "broken"
    shutil.copytree(whole, broken)
    for suffix in ("json", "safetensors"):
        (broken / "checkpoints" / f"000006.{suffix}").unlink()
    assert main(["--quiet", "--resume", "--out", str(broken), "particles=3"]) == 1
    assert main(["--quiet", "--resume", "--overwrite", "--out", str(broken), "export.face_budget=150"]) == 0
    assert_same_bits(whole, broken, 6)
    summary = json.loads((broken / "summary.json").read_text())
    assert all(export["faces"] <= 150 for export in summary["exports"]) and len(summary["exports"]) == 2


def assert_same_bits(one: Path, other: Path, step: int) -> None:
    first, second = (load_file(folder / "checkpoints" / f"{step:06d}.safetensors") for folder in (one, other))
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    assert any(name.startswith("optimizer.particles.1.") for name in first)


def test_a_run_with_fewer_particles_leaves_no_asset_of_an_earlier_one(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    folder = tmp_path / "again"
    shutil.copytree(finished[0], folder)
    less = ["stages.coarse.steps=1", "output.turntable_frames=0", "export.enabled=false", "refine=false"]
    generate(config(*less), folder, overwrite=True)
    assert [path.name for path in (folder / "asset").iterdir()] == ["asset.ply"]
    assert json.loads((folder / "summary.json").read_text()).keys() == {
        "seconds",
        "prior_calls",
        "skipped_steps",
        "exports",
    }


def test_particles_begin_differently() -> None:
    scene = Pipeline(config("particles=3", "refine=false")).first().representation
    assert isinstance(scene, Ensemble) and len(scene) == 3
    means = [scene[k].get_parameter("means") for k in range(3)]
    assert not means[0].equal(means[1]) and not means[1].equal(means[2])


def test_one_particle_is_no_ensemble() -> None:
    """The first of three begins as the only one does, under the same names as without the setting."""
    one, three = (Pipeline(config(f"particles={count}", "refine=false")).first() for count in (1, 3))
    assert not isinstance(one.representation, Ensemble)
    assert {name for name in one.tensors() if name.startswith("representation.")} == {
        *(f"representation.{name}" for name in one.representation.state_dict())
    }
    assert isinstance(three.representation, Ensemble)
    assert one.representation.get_parameter("means").equal(three.representation[0].get_parameter("means"))


def test_an_empty_particle_is_named(tmp_path: Path) -> None:
    def fade(stage: Stage) -> None:
        scene = particles_of(stage.representation)[1]
        scene.get_parameter("opacity_logits").data.fill_(-20)

    run = config("particles=2", "refine=false", "stages.coarse.steps=1", "output.turntable_frames=0")
    with pytest.raises(UserError, match=r"cannot export the asset of particle 2: the scene is empty.*--resume"):
        generate(run, tmp_path / "run", watch=fade)
    pipeline = Pipeline(config("particles=2", "stages.texture.steps=0"))
    stage = pipeline.first()
    fade(stage)
    with pytest.raises(
        UserError, match=r"cannot convert the scene of particle 2 to dmtet for stage 'geometry': the scene is empty"
    ):
        pipeline.following(stage)


def test_no_particles_are_refused() -> None:
    with pytest.raises(UserError, match="particles is 0; 1 to 64 is accepted"):
        config("particles=0")


def test_the_variance_is_probed_at_the_particle_whose_turn_it_is() -> None:
    stage = Pipeline(
        config("particles=2", "refine=false", "stages.coarse.probe_every=1", "stages.coarse.probe_tuples=8")
    ).first()
    before = {name: tensor.clone() for name, tensor in stage.representation.named_buffers()}
    found = stage.probe({"own": stage.distiller}, 8, torch.Generator().manual_seed(0))
    assert found["own"].parameters.noise > 0
    assert all(tensor.equal(before[name]) for name, tensor in stage.representation.named_buffers())
    info = stage.step()
    assert info.values["variance"] > 0 and info.values["probe/own/noise"] > 0


@pytest.mark.parametrize(
    ("modalities", "truth"),
    [((), lambda mesh: mesh), (("stages.coarse.modalities={color: 1, albedo: 0, normal: 0, depth: 0}",), shade)],
    ids=["unlit", "lit"],
)
def test_a_comparison_judges_the_first_particle(
    modalities: tuple[str, ...], truth: Callable[[TriangleMesh], TriangleMesh], tmp_path: Path
) -> None:
    """Scenes that distill albedo are compared with the object without light."""
    settings = (*QUICK, *modalities, "particles=2", "stages.coarse.steps=1")
    trial = Trial("two", "sds", settings, "a red mug", 0, "gaussians", "world", "cpu", 1, 1, 0, 2, 16, "psnr", "")
    record = tmp_path / "record.json"
    Record(trial).write(record)
    start, end = run_trial(record, tmp_path / "run").measurements

    stage = Pipeline(trial.config()).first()
    scores = [
        psnr_score(truth(stage.embedding.objects[0]), 2, 16).of(scene) for scene in particles_of(stage.representation)
    ]
    assert start.score == pytest.approx(scores[0], abs=1e-6) and start.score != pytest.approx(scores[1], abs=1e-6)
    assert end.score is not None and end.score != start.score


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("diffusers")
    return save_tiny_model(tmp_path_factory.mktemp("model"), "StableDiffusionPipeline")


ONE_VIEW = "stages.coarse.views.per_step=1"


def vsd(model: Path, *overrides: str) -> RunConfig:
    settings = [
        "representation.count=100", "stages.coarse.steps=4", "stages.coarse.resolution=32",
        "stages.coarse.warmup_resolution=32", "stages.coarse.probe_every=2", "export.enabled=false",
        "output.checkpoint_every=2", "output.preview_every=0", "output.turntable_frames=0", "output.image_size=32",
        "output.log_every=1", "particles=2", *overrides,
    ]  # fmt: skip
    return load_config("cpu", method="vsd", prompt="a mug", prior=str(model), refine=False, overrides=settings)


@pytest.mark.parametrize("per_step", [1, 2])
def test_one_learned_score_is_taught_images_of_all_particles(
    model: Path, per_step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Pipeline(vsd(model, f"stages.coarse.views.per_step={per_step}")).first()
    batches: list[LoRABatch[Any]] = []
    drawn: list[dict[int, Tensor]] = [{}, {}]
    learn = LearnedScore.learn

    def noted(score: LearnedScore[Any], batch: LoRABatch[Any]) -> None:
        batches.append(batch)
        learn(score, batch)

    def watched(particle: Representation, k: int) -> Callable[..., RenderOutput]:
        render = particle.render

        def draw(cameras: Cameras, background: Tensor) -> RenderOutput:
            output = render(cameras, background)
            drawn[stage.done][k] = output.rgb.detach()
            return output

        return draw

    monkeypatch.setattr(LearnedScore, "learn", noted)
    for k, particle in enumerate(particles_of(stage.representation)):
        monkeypatch.setattr(particle, "render", watched(particle, k))
    weights = {name: p.clone() for name, p in stage.distiller.state_dict().items() if "lora_B" in name}
    for _ in range(2):
        stage.step()
    assert [sorted(each) for each in drawn] == ([[0], [1]] if per_step == 1 else [[0, 1], [0, 1]])
    for step, (batch, images) in enumerate(zip(batches, drawn, strict=True)):
        in_views = torch.cat([images[(view + step) % 2] for view in range(per_step)])
        assert torch.allclose(batch.clean, stage.prior.encode(in_views).float(), atol=1e-5)
    after = stage.distiller.state_dict()
    assert weights and any(not after[name].equal(tensor) for name, tensor in weights.items())


def test_a_resumed_run_by_vsd_ends_in_the_same_bits(model: Path, tmp_path: Path) -> None:
    """With three particles and one view a step, the checkpoint in the middle is not the first particle's turn."""
    whole, broken, settings = tmp_path / "whole", tmp_path / "broken", vsd(model, "particles=3", ONE_VIEW)
    generate(settings, whole)
    shutil.copytree(whole, broken)
    for suffix in ("json", "safetensors"):
        (broken / "checkpoints" / f"000004.{suffix}").unlink()
    generate(settings, broken, resume=True)
    assert_same_bits(whole, broken, 4)
    saved = load_file(whole / "checkpoints" / "000002.safetensors")
    assert int(saved["representation.turn"]) == 2
    assert any(name.startswith("optimizer.particles.1.") for name in saved)
    assert not any(name.startswith("optimizer.particles.2.") for name in saved), "it has not been drawn yet"
