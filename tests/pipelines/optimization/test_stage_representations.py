"""A stage names what it trains: any representation may follow any other that it can be made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import trimesh
from fitted_scenes import ring_and_ball
from safetensors.torch import load_file
from torch import Tensor, nn

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config import plugins
from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.export import ExportConfig
from steindreamer.pipelines.meshing.conversion import Conversion, conversion_psnr
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import (
    REPRESENTATIONS,
    Cameras,
    GaussiansConfig,
    Nerf,
    NerfConfig,
    RenderOutput,
    Representation,
    SceneContext,
)
from steindreamer.representations.fields import HashGridConfig, RadianceFieldConfig
from steindreamer.representations.nerf import surface_fit

VOXELS = Path(__file__).parents[3] / "examples" / "02_your_representation.py"
SMALL = [
    "prompt=a red mug", "prior.name=world", "prior.objects=1", "representation.count=300", "representation.opacity=0.5",
    *(f"stages.{name}.{setting}" for name in ("coarse", "geometry", "texture") for setting in (
        "steps=2", "resolution=16", "warmup_resolution=16", "probe_every=0"
    )),
    "output.image_size=16", "output.turntable_frames=0", "output.preview_every=0", "output.checkpoint_every=1",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=128",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=400", "export.padding=1",
]  # fmt: skip
NERF = "stages.geometry.representation={name: nerf, samples: 24, radiance: {hash_grid: {levels: 2, log2_size: 10}}}"


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it; a radiance field is fitted in few steps."""
    monkeypatch.setattr(surface_fit, "FIT_STEPS", 20)
    kept = dict(REPRESENTATIONS), dict(plugins.LOADED)
    yield
    for registry, content in zip((REPRESENTATIONS, plugins.LOADED), kept, strict=True):
        registry.clear()
        registry.update(content)  # pyright: ignore[reportArgumentType, reportCallIssue]


def _config(*overrides: str) -> RunConfig:
    return load_config(None, overrides=[*SMALL, *overrides])


def _closed(folder: Path) -> bool:
    mesh = trimesh.load(folder / "asset" / "asset.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    return mesh.is_watertight and len(mesh.faces) > 100


def _interrupted(whole: Path, folder: Path, step: int) -> None:
    """The folder as the run would have left it if it had been killed after `step`; the checkpoint is still there."""
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "asset")
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem) > step:
            path.unlink()
    assert (folder / "checkpoints" / f"{step:06d}.json").is_file()


def _assert_same(one: Path, other: Path) -> None:
    names = [folder / "checkpoints" / "000006.safetensors" for folder in (one, other)]
    first, second = map(load_file, names)
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    assert (one / "asset" / "asset.glb").read_bytes() == (other / "asset" / "asset.glb").read_bytes()


@pytest.mark.parametrize(
    ("settings", "stages"),
    [
        ([NERF], {2: "Gaussians", 4: "Nerf", 6: "TexturedMesh"}),
        (
            ["--plugin", str(VOXELS), "stages.geometry.representation={name: voxels, resolution: 12, samples: 16}"],
            {2: "Gaussians", 4: "Voxels", 6: "TexturedMesh"},
        ),
    ],
    ids=["nerf", "voxels of a plugin"],
)
def test_a_representation_in_the_geometry_stage_trains_and_resumes_in_every_stage(
    settings: list[str], stages: dict[int, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tmp_path / "whole"
    assert main(["--out", str(whole), *SMALL, *settings]) == 0, capsys.readouterr().err
    captured = capsys.readouterr().out
    for before, after in (("Gaussians", stages[4]), (stages[4], "TexturedMesh")):
        name = {"Nerf": "nerf", "Voxels": "voxels", "TexturedMesh": "textured_mesh"}[after]
        assert f"converting {before} to {name}\n" in captured
    assert _closed(whole)
    saved = sorted(int(path.stem) for path in (whole / "checkpoints").glob("*.json"))
    for step in saved[:-1]:
        folder = tmp_path / f"from-{step}"
        _interrupted(whole, folder, step)
        plugin = settings[:2] if "--plugin" in settings else []
        assert main(["--resume", "--out", str(folder), *plugin]) == 0, capsys.readouterr().err
        assert f"resuming after step {step}" in capsys.readouterr().out
        _assert_same(whole, folder)
    assert {json.loads((whole / "checkpoints" / f"{step:06d}.json").read_text())["stage"] for step in saved} == {
        "coarse", "geometry", "texture"
    }  # fmt: skip


def test_scenes_may_follow_in_any_order() -> None:
    """Gaussians, a NeRF, a texture, and Gaussians again."""
    pipeline = Pipeline(
        _config(NERF, "stages.again={representation: {name: gaussians, count: 200}, steps: 1, resolution: 16}")
    )
    stage, kinds = pipeline.first(), []
    while stage is not None:
        kinds.append(type(stage.representation).__name__)
        assert not stage.step().skipped
        stage = pipeline.following(stage)
    assert kinds == ["Gaussians", "Nerf", "TexturedMesh", "Gaussians"]


class Flat(Representation):
    """Can only begin."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
        full = torch.ones(len(cameras), 1, cameras.height, cameras.width)
        normal = -cameras.forward[:, :, None, None] * full
        return RenderOutput(self.color[:, None, None] * full, full, 3 * full, normal)

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": 0.01}


@dataclass
class FlatConfig:
    def build(self, generator: torch.Generator, device: torch.device) -> Flat:
        return Flat().to(device)


@dataclass
class FollowingConfig:
    """Can only follow."""

    fault: str = ""

    def blank(self, device: torch.device) -> Flat:
        return Flat().to(device)

    def from_scene(self, scene: Representation, context: SceneContext) -> Representation:
        if self.fault == "raises":
            raise KeyError("a surprise")
        return scene if not self.fault else None  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["stages.geometry.representation.name=flat"],
            "stages.geometry.representation.name is 'flat', which cannot take over the scene of an earlier stage",
        ),
        (
            ["representation.name=textured_mesh"],
            "representation.name is 'textured_mesh', which cannot be the first",
        ),
        (["stages.coarse.representation.name=following"], "stages.coarse.representation.name is 'following', which"),
    ],
)
def test_what_cannot_stand_in_its_place_is_refused_before_the_prior_is_loaded(
    settings: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    REPRESENTATIONS["flat"], REPRESENTATIONS["following"] = FlatConfig, FollowingConfig
    monkeypatch.setattr("steindreamer.pipelines.runs.pipeline.built_prior", lambda *given: pytest.fail("loaded"))
    names = [setting for setting in SMALL if not setting.startswith("representation.")]
    with pytest.raises(SettingsError) as caught:
        Pipeline(load_config(None, overrides=[*names, *settings]))
    assert message in str(caught.value) and "; choose one of " in str(caught.value)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raises", "FollowingConfig.from_scene raised KeyError: 'a surprise'"),
        ("nothing", "FollowingConfig.from_scene must return a Representation, got a NoneType"),
    ],
)
def test_a_faulty_conversion_is_one_line(fault: str, message: str) -> None:
    REPRESENTATIONS["following"] = FollowingConfig
    pipeline = Pipeline(_config(f"stages.geometry.representation={{name: following, fault: {fault}}}"))
    stage = pipeline.first()
    with pytest.raises(UserError, match=message):
        pipeline.following(stage)


def test_a_foreign_representation_of_a_later_stage_is_tried_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dark(Flat):
        def render(self, cameras: Cameras, background: Tensor) -> RenderOutput:
            output = super().render(cameras, background)
            return RenderOutput(255 * output.rgb, output.opacity, output.depth, output.normal)

    @dataclass
    class DarkConfig(FollowingConfig):
        def build(self, generator: torch.Generator, device: torch.device) -> Flat:
            return Dark().to(device)

        def blank(self, device: torch.device) -> Flat:
            return Dark().to(device)

    REPRESENTATIONS["dark"] = DarkConfig
    with pytest.raises(UserError, match=r"Dark.render rendered rgb .* divide by 255"):
        Pipeline(_config("stages.geometry.representation.name=dark")).first()


def test_the_first_scene_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []
    whole = GaussiansConfig.build

    def build(self: GaussiansConfig, generator: torch.Generator, device: torch.device | str = "cpu") -> Representation:
        built.append("gaussians")
        return whole(self, generator, device)

    monkeypatch.setattr(GaussiansConfig, "build", build)
    Pipeline(_config()).first()
    assert built == ["gaussians"]
    Pipeline(_config()).resumed("geometry")
    assert built == ["gaussians"], "what has been trained already is not tried again"


@pytest.mark.slow
def test_gaussians_and_a_nerf_made_of_a_scene_look_like_it(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    scene = ring_and_ball()
    context = Conversion(ExportConfig(resolution=64, cameras=24, view_size=128), generator, torch.device("cpu"))
    gaussians = GaussiansConfig(count=4000).from_scene(scene, context)
    assert conversion_psnr(scene, gaussians, 96) > 16
    radiance = RadianceFieldConfig(hash_grid=HashGridConfig(levels=6, log2_size=14, finest=96))
    nerf = NerfConfig(samples=96, radiance=radiance).from_scene(scene, context)
    assert isinstance(nerf, Nerf) and conversion_psnr(scene, nerf.eval(), 96) > 18


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mesh.color.grid=3", "'mesh' was renamed to 'stages.geometry.representation'"),
        ("texture.size=64", "'texture' was renamed to 'stages.texture.representation'"),
        ("stages.geometry.scene=mesh", "'stages.geometry.scene' was renamed to 'stages.geometry.representation.name'"),
        ("stages.polish={scene: mesh}", "'stages.polish.scene' was renamed to 'stages.polish.representation.name'"),
    ],
)
def test_old_names_lead_to_new_ones(old: str, new: str) -> None:
    with pytest.raises(SettingsError, match=new):
        _config(old)
