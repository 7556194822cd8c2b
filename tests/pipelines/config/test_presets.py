"""The presets after published methods: their numbers, and that each runs on a small Stable Diffusion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from safetensors.torch import load_file
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill import SDSConfig
from steindreamer.distill.methods.vsd import VSDConfig
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.optimization.views import sample_views
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.pipelines.settings.schedules import parse_schedule
from steindreamer.representations import REPRESENTATIONS, Cameras, RenderOutput

STAGES = {
    "dreamfusion": ["coarse"],
    "magic3d": ["coarse", "geometry"],
    "prolificdreamer": ["coarse", "geometry", "texture"],
    "fantasia3d": ["coarse", "texture"],
    "scene": ["coarse"],
}
OBJECTS = [name for name in STAGES if name != "scene"]
SMALL = [
    "stages.coarse.resolution=32", "stages.coarse.warmup_resolution=32", "stages.geometry.resolution=32",
    "stages.texture.resolution=32",
    "stages.geometry.representation={name: dmtet, resolution: 16, color: {grid: {levels: 2, log2_size: 10}}}",
    "export.resolution=32", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=500", "output.turntable_frames=0", "output.image_size=32", "output.log_every=1",
]  # fmt: skip
SMALL_SCENE = {
    # Eight levels are the fewest: one preset begins with so many.
    "nerf": ["representation.samples=24", "representation.radiance.hash_grid={levels: 8, log2_size: 10}"],
    "dmtet": ["representation.resolution=16"],
    "gaussians": ["representation.count=300"],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("diffusers")
    return f"prior.model={save_tiny_model(tmp_path_factory.mktemp('tiny'))}"


def _small(name: str, model: str, **chosen: Any) -> RunConfig:
    representation = chosen.get("representation") or load_config(name).names["representation"]
    steps = [f"stages.{stage}.steps=2" for stage in STAGES[name]]
    return load_config(name, overrides=[model, *SMALL, *SMALL_SCENE[representation], *steps], **chosen)


@pytest.mark.parametrize(
    ("name", "stage", "regularizer", "published", "progress", "resolution"),
    [
        ("dreamfusion", "coarse", "sparsity", 1, 0.0, 64),
        ("dreamfusion", "coarse", "orientation", 10, 0.0, 64),
        ("dreamfusion", "coarse", "orientation", 505, 0.25, 64),
        ("dreamfusion", "coarse", "orientation", 1000, 0.5, 64),
        ("magic3d", "coarse", "sparsity", 1, 0.5, 64),
        ("magic3d", "coarse", "orientation", 1000, 0.5, 64),
        ("magic3d", "geometry", "edge_normal_consistency", 1e4, 0.5, 512),
        ("prolificdreamer", "coarse", "sparsity", 10, 0.19, 64),
        ("prolificdreamer", "coarse", "sparsity", 10, 0.2, 512),
        ("prolificdreamer", "coarse", "opaque", 0, 0.39, 512),
        ("prolificdreamer", "coarse", "opaque", 1000, 0.4, 512),
        ("prolificdreamer", "geometry", "edge_normal_consistency", 1e4, 0.5, 512),
        ("scene", "coarse", "z_variance", 1, 0.19, 64),
        ("scene", "coarse", "z_variance", 1, 0.2, 512),
    ],
)
def test_regularizers_weigh_what_is_published(
    name: str, stage: str, regularizer: str, published: float, progress: float, resolution: int
) -> None:
    config = load_config(name).stages[stage]
    drawn = config.warmup_resolution if progress < config.warmup else config.resolution
    assert drawn == resolution
    weight = parse_schedule(config.regularizers[regularizer], regularizer).value_at(progress)
    assert weight == published


@pytest.mark.parametrize(
    ("name", "stage", "steps", "guidance", "first_maximum", "step", "maximum"),
    [
        # Written e_c + 100 (e_c - e_0), guidance 100 is e_0 + 101 (e_c - e_0).
        ("dreamfusion", "coarse", 10000, 101, 0.98, 10000, 0.98),
        ("magic3d", "coarse", 10000, 101, 0.98, 10000, 0.98),
        ("magic3d", "geometry", 5000, 101, 0.5, 5000, 0.5),
        ("prolificdreamer", "coarse", 25000, 7.5, 0.98, 5000, 0.5),
        ("prolificdreamer", "geometry", 15000, 101, 0.98, 5000, 0.5),
        ("prolificdreamer", "texture", 30000, 7.5, 0.98, 5000, 0.5),
        ("fantasia3d", "coarse", 10000, 101, 0.5, 10000, 0.5),
        ("fantasia3d", "texture", 5000, 101, 0.5, 5000, 0.5),
        ("scene", "coarse", 25000, 7.5, 0.98, 10000, 0.5),
    ],
)
def test_guidance_and_noise_levels_are_as_published(
    name: str, stage: str, steps: int, guidance: float, first_maximum: float, step: int, maximum: float
) -> None:
    config = load_config(name)
    method = config.methods[stage]
    assert (config.stages[stage].steps, method.guidance_scale) == (steps, guidance)
    assert method.timesteps.minimum == 0.02 and method.timesteps.maximum_at(0.0) == first_maximum
    assert method.timesteps.maximum_at(step / steps) == pytest.approx(maximum, abs=1e-3)


def test_vsd_is_as_published() -> None:
    """Where ProlificDreamer has it: not on normals, whose method is SDS with settings of its own."""
    for name, stages in (("prolificdreamer", ("coarse", "texture")), ("scene", ("coarse",))):
        for stage in stages:
            method = load_config(name).methods[stage]
            assert isinstance(method, VSDConfig) and method.control_variates.terms == []
            assert (method.rank, method.lora_rate, method.lora_steps) == (4, 1e-4, 1)
            assert (method.camera, method.camera_weight, method.camera_dropout) == (True, 1, 0.1)
    assert type(load_config("prolificdreamer").methods["geometry"]) is SDSConfig


@pytest.mark.parametrize("name", list(STAGES))
def test_stages_and_what_they_train(name: str) -> None:
    config = load_config(name)
    assert config.names["prior"] == "stable-diffusion"
    assert list(config.active_stages()) == STAGES[name]
    normals = {("prolificdreamer", "geometry"), ("fantasia3d", "coarse")}
    for stage, its in config.stages.items():
        wanted = "normal" if (name, stage) in normals else "color"
        assert (its.fractions, its.normals_as_color) == ({wanted: 1.0}, wanted == "normal")


def _first_images(name: str, generator: torch.Generator) -> tuple[Cameras, RenderOutput]:
    """Eight of a run's own views of its scene before the first step; features are nearly zero, so few will do."""
    config = load_config(name)
    if name != "fantasia3d":
        config = load_config(name, overrides=["representation.radiance.hash_grid={levels: 8, log2_size: 10}"])
    views = config.stages["coarse"].views
    views.per_step = 8
    cameras, background = sample_views(views, 24, generator)
    representation: Any = config.representation
    with torch.no_grad():
        return cameras, representation.build(generator, torch.device("cpu")).render(cameras, background)


@pytest.mark.parametrize("name", OBJECTS)
def test_the_first_images_show_an_object(name: str, generator: torch.Generator) -> None:
    """The starting shape and the cameras belong together."""
    _, output = _first_images(name, generator)
    covered = (output.opacity > 0.5).float().mean((1, 2, 3))
    assert float(covered.min()) > 0.05, "something to be seen in every view"
    assert 0.1 < float(covered.mean()) < 0.8, "neither a speck nor a wall"


def test_a_scene_begins_as_a_wall_around_its_cameras(generator: torch.Generator) -> None:
    cameras, output = _first_images("scene", generator)
    assert float(cameras.position.norm(dim=1).max()) < 2.5
    assert float(output.opacity.min()) > 0.99
    points = cameras.unproject(output.depth)
    assert 2.3 < float(points.norm(dim=1).mean()) < 3.5, "the wall stands a little beyond the blob's width"


@pytest.mark.slow
@pytest.mark.parametrize("name", list(STAGES))
def test_presets_work_with_every_representation_and_the_other_method(name: str, model: str) -> None:
    """Settings and regularizers of one representation must not reach another."""
    other = {"sds": "ssd", "vsd": "sds"}[load_config(name).names["method"]]
    for representation in SMALL_SCENE:
        config = _small(name, model, representation=representation, method=other)
        stage = Pipeline(config).first()
        assert isinstance(stage.representation.config, REPRESENTATIONS[representation])


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_two_steps_of_every_stage_end_in_an_asset(name: str, model: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    names, stages = load_config(name).names, STAGES[name]
    steps = [f"stages.{stage}.steps=2" for stage in stages]
    settings = [model, *SMALL, *SMALL_SCENE[names["representation"]], *steps]
    assert main(["--quiet", "--preset", name, "--out", str(folder), *settings]) == 0

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [stage for stage in stages for _ in range(2)]
    assert checkpoint_steps(folder / "checkpoints")[-1] == 2 * len(stages)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["skipped_steps"] == 0 and summary["exports"][0]["watertight"]
    asset: Any = trimesh.load(folder / "asset" / "asset.glb", force="mesh")
    asset.merge_vertices(merge_tex=True, merge_norm=True)
    assert asset.is_watertight and 100 < len(asset.faces) <= 500


@pytest.mark.slow
def test_two_steps_of_a_scene_end_without_an_asset(model: str, tmp_path: Path) -> None:
    """There is no object to cut out of it; its images are taken from inside."""
    folder = tmp_path / "run"
    settings = [model, *SMALL, *SMALL_SCENE["nerf"], "stages.coarse.steps=2"]
    assert main(["--quiet", "--preset", "scene", "--out", str(folder), *settings]) == 0
    assert not (folder / "asset").exists()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all("z_variance" in line for line in lines)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["skipped_steps"] == 0 and summary["exports"] == []
    normals = np.asarray(Image.open(folder / "previews" / "final.png"))[32:]
    assert (normals < 250).any(-1).all(), "no view shows the white that is behind a scene seen from outside"

    start = Pipeline(_small("scene", model)).first()
    before = {name: value.clone() for name, value in start.tensors().items()}
    after = load_file(folder / "checkpoints" / "000002.safetensors")
    table = "representation.radiance.grid.table"
    assert not after[table].equal(before[table])
