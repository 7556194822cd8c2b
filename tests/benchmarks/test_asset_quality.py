"""The scorecard of exported assets: a true object scores near-perfect, and every measure sees its own defect."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.export.gltf import height_in_scene, write_glb
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.pipelines.runs.folder import write_config
from steindreamer.representations import TriangleMesh
from steindreamer.world import parse_caption, sample_object
from steindreamer.world.views import shade

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("glb", "asset_measures", "true_asset", "asset_quality")
TRUTH = sample_object(parse_caption("a red mug"), np.random.default_rng(5))
VIEWS, SIZE = 4, 128


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("asset_quality")
    for name in NAMES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def measures(script: Any) -> Any:
    return sys.modules["asset_measures"]


@pytest.fixture(scope="module")
def exported(script: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The true mug through our exporter, at a small size."""
    settings = {"cameras": 24, "view_size": 128, "texture_size": 256, "face_budget": 8000, "tolerance": 0.0}
    return script.export_true_object(TRUTH, tmp_path_factory.mktemp("mug"), 0.03, **settings)


@pytest.fixture(scope="module")
def asset(script: Any, measures: Any, exported: Path) -> TriangleMesh:
    return measures.in_scene(script.read_glb(exported), None)


@pytest.fixture(scope="module")
def perfect(measures: Any, asset: TriangleMesh) -> dict[str, float]:
    return measures.measure(asset, TRUTH, VIEWS, SIZE)


def painted(asset: TriangleMesh, texture: np.ndarray) -> TriangleMesh:
    return replace(asset, texture=torch.from_numpy(texture.astype(np.float32)).clamp(0, 1))


def test_a_true_object_scores_near_perfect(script: Any, perfect: dict[str, float]) -> None:
    assert perfect["normal_error"] < 6 and perfect["chamfer"] < 8 and perfect["wall_error"] < 3
    assert perfect["psnr_albedo"] > 27 and perfect["psnr_albedo"] > perfect["psnr_lit"] + 3
    assert perfect["flat"] < perfect["flat_truth"] + 1.5 and perfect["wall"] <= perfect["flat"] + 0.5
    assert perfect["light"] < 0.3 * perfect["light_truth"] and perfect["light_truth"] > 3
    assert perfect["grain"] < 1 and math.isnan(perfect["edge_width"])  # no edge of color on a continuous surface
    assert 0.9 < perfect["cavity_fraction"] < 1.1 and perfect["cavity"] > 500
    assert perfect["handles"] == perfect["handles_truth"] == 1 and perfect["handles_off"] == 0
    assert perfect["parts"] == perfect["parts_truth"] == 1
    assert 0.2 < perfect["coverage"] < 1 and perfect["texture_size"] == 256
    assert set(script.MEASURES) - set(perfect) == {"seconds", "calls"}


def test_a_rotated_copy_scores_worse(measures: Any, asset: TriangleMesh, perfect: dict[str, float]) -> None:
    turn = torch.from_numpy(trimesh.transformations.rotation_matrix(0.4, [0, 1, 0])[:3, :3]).float()
    assert asset.normals is not None
    turned = replace(asset, vertices=asset.vertices @ turn.T, normals=asset.normals @ turn.T)
    assert measures.mean_normal_error(turned, TRUTH, VIEWS, SIZE) > perfect["normal_error"] + 2
    assert measures.held_out_psnr(turned, TRUTH, VIEWS, SIZE) < perfect["psnr_albedo"] - 3
    assert measures.chamfer_millimeters(turned, TRUTH) > 2 * perfect["chamfer"]


def test_bumps_show_in_flat_and_wall(measures: Any, asset: TriangleMesh, perfect: dict[str, float]) -> None:
    assert asset.normals is not None
    bumps = 0.3 * torch.sin(60 * asset.vertices)
    rough = replace(asset, normals=torch.nn.functional.normalize(asset.normals + bumps, dim=1))
    found = measures.Pair.render(rough, TRUTH, VIEWS, SIZE).roughness()
    assert found["flat"] > perfect["flat"] + 3 and found["wall"] > perfect["wall"] + 3
    assert found["wall_error"] > perfect["wall_error"] + 3
    assert found["flat_truth"] == pytest.approx(perfect["flat_truth"], rel=0.05)
    larger = replace(rough, vertices=1.4 * rough.vertices)  # its sides are out of reach of the truth's walls
    pair = measures.Pair.render(larger, TRUTH, VIEWS, SIZE)
    near = (pair.asset.depth - pair.truth.render.depth)[:, 0].abs() < measures.WALL
    assert pair.solid.sum() > 20 * (pair.solid & near).sum() and pair.roughness()["flat"] > 3


def test_baked_light_is_that_of_the_lit_truth(measures: Any, asset: TriangleMesh, perfect: dict[str, float]) -> None:
    assert asset.texture is not None and asset.normals is not None
    gray = TriangleMesh(asset.vertices, asset.faces, asset.normals, colors=torch.full_like(asset.vertices, 0.5))
    texels, shaded = rasterize_uvs(asset, 256), shade(gray).colors
    assert shaded is not None
    factor = texels.image(texels.interpolate(shaded) / 0.5).transpose(2, 0, 1)
    pair = measures.Pair.render(painted(asset, asset.texture.numpy() * factor), TRUTH, VIEWS, SIZE)
    assert pair.baked_light(pair.asset.rgb) == pytest.approx(perfect["light_truth"], rel=0.25)
    assert pair.baked_light(pair.truth.albedo) < 1e-4


def test_grain_is_the_standard_deviation_of_noise(
    measures: Any, asset: TriangleMesh, perfect: dict[str, float]
) -> None:
    assert asset.texture is not None
    noise = np.random.default_rng(0).normal(size=asset.texture.shape) * 4 / 255
    found = measures.texture_measures(painted(asset, asset.texture.numpy() + noise), TRUTH)
    assert found["grain"] == pytest.approx(math.hypot(4, perfect["grain"]), rel=0.1)


def test_blurred_images_have_wider_edges(measures: Any) -> None:
    """A beach ball's stripes: up to two pixels wide, and sqrt(2 pi) standard deviations if they are blurred."""
    ball = sample_object(parse_caption("a red beach ball"), np.random.default_rng(0))
    pair = measures.Pair.render(ball, ball, 2, 192)
    pixel = 1000 * 2.4 / pair.focal  # the ball's front is 0.8 m nearer than its center
    assert 1.3 * pixel < pair.edge_width(pair.asset.rgb) < 2.1 * pixel
    blurred = torch.from_numpy(measures.ndimage.gaussian_filter(pair.asset.rgb.numpy(), (0, 0, 3, 3)))
    assert pair.edge_width(blurred) == pytest.approx(math.sqrt(2 * math.pi) * 3 * pixel, rel=0.25)


def test_a_lid_closes_the_cavity(measures: Any) -> None:
    top = float(TRUTH.vertices[:, 1].max()) - 0.02
    square = torch.tensor([[-0.4, top, -0.4], [-0.4, top, 0.4], [0.4, top, 0.4], [0.4, top, -0.4]])
    middle = TRUTH.vertices[:, [0, 2]].clone()
    middle[TRUTH.vertices[:, 1] < top - 0.02] = torch.nan  # the rim alone
    square[:, [0, 2]] += torch.from_numpy(np.nanmean(middle.numpy(), 0)).float()
    faces = torch.cat([TRUTH.faces, len(TRUTH.vertices) + torch.tensor([[0, 1, 2], [0, 2, 3]])])
    lidded = TriangleMesh(torch.cat([TRUTH.vertices, square]), faces)
    assert measures.cavity(lidded, TRUTH)["cavity_fraction"] < 0.1
    ball = measures.cavity(lidded, sample_object(parse_caption("a yellow duck"), np.random.default_rng(0)))
    assert math.isnan(ball["cavity"])


def test_handles_are_counted_on_the_welded_mesh(measures: Any) -> None:
    torus, sphere = trimesh.creation.torus(0.5, 0.2), trimesh.creation.icosphere(subdivisions=2)
    assert list(measures.shells(torus.vertices, torus.faces)) == [1]
    both = trimesh.util.concatenate([torus, sphere.apply_translation([3, 0, 0])])
    assert sorted(measures.shells(both.vertices, both.faces)) == [0, 1]  # pyright: ignore[reportAttributeAccessIssue]
    assert not list(measures.shells(sphere.vertices, sphere.faces[:, ::-1]))  # the wall of a cavity
    split = TriangleMesh(
        torch.from_numpy(torus.vertices[torus.faces].reshape(-1, 3)).float(),
        torch.arange(3 * len(torus.faces)).reshape(-1, 3),
    )
    found = measures.topology(split, TRUTH)
    assert (found["handles"], found["handles_truth"], found["parts"]) == (1, 1, 1)
    assert measures.charts(split) == {"charts": len(torus.faces), "small_charts": len(torus.faces)}


def test_the_nearest_truth_is_the_object_itself(script: Any, measures: Any) -> None:
    truths = script.true_objects("a red mug", 4)
    assert [measures.nearest(each, truths, 2, 32) for each in truths] == [0, 1, 2, 3]
    assert torch.equal(script.true_objects("a red mug", 2)[1].vertices, truths[1].vertices)


@pytest.mark.parametrize("height", [None, 0.1])
def test_the_exports_placement_is_undone(script: Any, measures: Any, asset: TriangleMesh, tmp_path: Path, height: Any):
    moved = replace(asset, vertices=asset.vertices + 0.3)
    noted: dict[str, object] = {"scene_height": height_in_scene(moved)}
    write_glb(tmp_path / "a.glb", moved, height_meters=height, extras=noted)
    back = measures.in_scene(script.read_glb(tmp_path / "a.glb"), script.extras(tmp_path / "a.glb")["scene_height"])
    torch.testing.assert_close(back.vertices, asset.vertices, atol=1e-5, rtol=0)


def row(kind: str, label: str = "tiny, gaussians", **values: object) -> dict[str, object]:
    named = {"kind": kind, "prompt": f"a {kind}", "seed": 0, "label": label, "prior": "tiny"}
    plain = {"representation": "gaussians", "truths": 16, "date": "2026-01-01", "machine": "m", "command": "c"}
    return {**named, **plain, **values}


def test_the_halves_are_disjoint_and_of_equal_size(script: Any) -> None:
    assert not set(script.TUNING) & set(script.HELD_OUT) and len(script.TUNING) == len(script.HELD_OUT) == 6
    assert all(parse_caption(prompt).kind == kind for kind, prompt in script.PROMPTS.items())
    with pytest.raises(SystemExit, match="no kind 'dog'"):
        script.chosen_prompts(["dog"])


def test_intervals_resample_kinds(script: Any) -> None:
    found = script.bootstrap([1.0, 2.0, 3.0, 6.0])
    assert found.mean == 3 and 1.0 <= found.low < 3 < found.high <= 6 and found.count == 4
    assert math.isnan(script.bootstrap([2.0]).low) and script.bootstrap([2.0, 2.0]).high == 2
    rows = [row("mug", flat=1.0), row("mug", seed=1, flat=3.0), row("chair", flat=5.0), row("car", flat=None)]
    assert script.by_kind(rows, "flat") == [2.0, 5.0]


def test_differences_are_paired(script: Any) -> None:
    new = [row("mug", flat=1.0, grain=2.0), row("chair", flat=5.0), row("car", flat=9.0)]
    old = [row("mug", "old", flat=9.0), row("mug", "old", flat=4.0), row("chair", "old", flat=7.0)]
    found = script.differences(new, old)
    assert [(each["kind"], each["flat"]) for each in found] == [("mug", -3.0), ("chair", -2.0)]
    text = script.report(new, old, "old.jsonl")
    assert "| flat, deg | -2.50 [-3.00, -2.00] |" in text.split("## Difference")[1]
    assert "| flat, deg | 3.00 [1.00, 5.00] | 9.00 | 5.00 [1.00, 9.00] |" in text.split("## Difference")[0]


def test_finished_rows_are_kept(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(script, "make", lambda folder, variant, prompt, *_: made.append(prompt) or folder)
    monkeypatch.setattr(script, "judge", lambda *_: {"flat": float(len(made)), "cavity": math.nan})
    monkeypatch.setattr(script, "join_sheets", lambda _: None)
    options = ["--out", str(tmp_path), "--priors", "truth"]
    script.main([*options, "--kinds", "mug"])
    script.main([*options, "--kinds", "mug", "chair"])
    assert made == ["a red mug", "a wooden chair"]
    rows = script.read_rows(tmp_path / "asset_quality.jsonl")
    assert [each["flat"] for each in rows] == [1, 2] and rows[0]["cavity"] is None
    assert "| flat, deg | 1.50 [1.00, 2.00] |" in (tmp_path / "asset_quality.md").read_text()


def test_runs_are_started_or_resumed(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    class Done:
        returncode = 0

    monkeypatch.setattr(script.subprocess, "run", lambda command, check: commands.append(command) or Done())
    variant = script.Variant("tiny", "mesh", settings=("stages.coarse.steps=5",))
    script.make(tmp_path, variant, "a red mug", 3, 16)
    (tmp_path / "config.yaml").touch()
    script.make(tmp_path, variant, "a red mug", 3, 16)
    (tmp_path / "summary.json").touch()
    assert script.make(tmp_path, variant, "a red mug", 3, 16) == tmp_path / "asset" / "asset.glb"
    first, second = commands
    assert first[-1] == "stages.coarse.steps=5" and "a red mug" in first and first[first.index("--seed") + 1] == "3"
    assert second[-1] == "--resume" and "a red mug" not in second
    assert variant.folder(0) != script.Variant("tiny", "mesh", settings=("stages.coarse.steps=50",)).folder(0)


def test_a_finished_run_is_judged_with_its_records(
    script: Any, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is made up but for its asset; guidance needs two calls for each of four views."""
    folder = tmp_path / "run"
    (folder / "asset").mkdir(parents=True)
    (folder / "asset" / "asset.glb").write_bytes(exported.read_bytes())
    write_config(
        folder, load_config(prompt="a red mug", overrides=["method.guidance_scale=3", "stages.coarse.views.per_step=4"])
    )
    lines = [("coarse", 10, 0.5), ("coarse", 15, 1.0), ("geometry", 20, 2.0)]
    records = [{"stage": name, "step": step, "seconds_per_step": seconds} for name, step, seconds in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "summary.json").write_text(
        json.dumps({"seconds": 99.0, "exports": [{"seconds": {"bake": 2, "maps": 1}}]})
    )
    monkeypatch.setattr(script, "measure", lambda mesh, truth: {"flat": float(len(mesh.faces))})
    script.main(["--judge", str(folder), "--out", str(tmp_path), "--truths", "2", "--label", "mine"])
    (found,) = script.read_rows(tmp_path / "asset_quality.jsonl")
    assert found["label"] == "mine" and found["kind"] == "mug" and found["flat"] > 0
    assert found["stages"]["coarse"] == {"steps": 15, "seconds": 10.0, "calls": 15 * 4 * 2}
    assert found["stages"]["geometry"] == {"steps": 5, "seconds": 10.0, "calls": 5 * found_views(folder, script)}
    assert found["stages"]["export"]["seconds"] == 3 and found["seconds"] == 99
    (sheet,) = (tmp_path / "sheets" / "judged").glob("*.png")
    with Image.open(sheet) as image, Image.open(tmp_path / "sheets" / "judged.png") as joined:
        assert image.size == joined.size == (8 * 256, 2 * 256)
    with pytest.raises(SystemExit, match="no finished run"):
        script.main(["--judge", str(tmp_path / "nothing"), "--out", str(tmp_path)])


def found_views(folder: Path, script: Any) -> int:
    """Calls per step of the geometry stage, whose guidance scale is 1."""
    return script.read_config(folder / "config.yaml").stages["geometry"].views.per_step
