"""A run that begins with a mesh of the user's own: the shape is kept, and the asset lies where the mesh lay."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree
from trimesh.visual import ColorVisuals

from steindreamer.pipelines import load_config
from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.export import write_glb
from steindreamer.pipelines.optimization.stage_config import REFINING_RATES
from steindreamer.pipelines.runs.pipeline import stages_of
from steindreamer.representations import Placement, TriangleMesh

PLACE = np.array([0.3, 0.05, -2.0])
"""Meters; of a figure that is 4 cm high."""
TINY = [
    "--prompt", "a yellow duck", "--repr", "mesh", "representation.initial_yaw=90", "prior.name=world",
    "prior.objects=1",
    *(f"stages.{name}.{setting}" for name, steps in {"coarse": 20, "geometry": 5, "texture": 2}.items() for setting in (
        f"steps={steps}", "resolution=24", "warmup_resolution=24", "probe_every=0"
    )),
    "representation.resolution=24", "representation.color.grid={levels: 2, log2_size: 10}",
    "stages.geometry.representation={name: dmtet, resolution: 24, color: {grid: {levels: 2, log2_size: 10}}}",
    "output.image_size=16", "output.turntable_frames=0", "output.preview_every=0",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=800", "export.padding=1",
]  # fmt: skip


def figure() -> trimesh.Trimesh:
    """Something like a duck, which looks to -X."""
    body = trimesh.creation.icosphere(3, 0.014)
    body.apply_scale([1.4, 1.0, 1.0])
    head = trimesh.creation.icosphere(3, 0.009)
    head.apply_translation([-0.014, 0.016, 0.0])
    beak = trimesh.creation.icosphere(2, 0.005)
    beak.apply_translation([-0.024, 0.015, 0.0])
    whole = trimesh.util.concatenate([body, head, beak])
    assert isinstance(whole, trimesh.Trimesh)
    whole.visual = ColorVisuals(whole, vertex_colors=(230, 190, 40))
    whole.apply_translation(PLACE)
    return whole


def distance(one: trimesh.Trimesh, other: trimesh.Trimesh) -> float:
    """Chamfer distance: the mean from the surface of each to that of the other, as a fraction of its diagonal."""
    points = [np.asarray(trimesh.sample.sample_surface(mesh, 20_000, seed=0)[0]) for mesh in (one, other)]
    there, back = (KDTree(points[1 - k]).query(points[k])[0].mean() for k in (0, 1))
    return (there + back) / 2 / float(np.linalg.norm(np.ptp(one.bounds, axis=0)))


def outer(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Without what lies inside the union of its parts."""
    return trimesh.boolean.union(mesh.split(only_watertight=True), engine="manifold")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run and what it printed."""
    folder = tmp_path_factory.mktemp("initial")
    figure().export(folder / "figure.ply")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["--out", str(folder / "run"), *TINY, f"representation.initial_mesh={folder / 'figure.ply'}"]) == 0
    (folder / "figure.ply").unlink()
    return folder / "run", printed.getvalue()


def exported_again(folder: Path, setting: str) -> trimesh.Trimesh:
    """The asset of the same scene with another setting."""
    shutil.rmtree(folder / "asset")
    assert main(["--quiet", "--resume", "--out", str(folder), setting]) == 0
    return asset(folder)


def asset(folder: Path) -> trimesh.Trimesh:
    mesh = trimesh.load_mesh(folder / "asset" / "asset.glb")
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


def test_the_given_shape_is_kept_in_its_place_and_size(finished: tuple[Path, str]) -> None:
    given, made = figure(), asset(finished[0])
    diagonal = float(np.linalg.norm(np.ptp(given.bounds, axis=0)))
    assert np.abs(made.bounds - given.bounds).max() < 0.03 * diagonal
    assert distance(outer(given), made) < 0.01, "0.006 at low rates, 0.021 at full ones"


def test_it_says_where_the_asset_goes_and_that_the_rates_are_low(finished: tuple[Path, str]) -> None:
    assert "0.02" in finished[1] and "around (0.2" in finished[1] and "the position and size of the file" in finished[1]
    assert "learning rates are multiplied by 0.1 in: coarse (stages.coarse.rates=1 disables this)" in finished[1]


def test_another_export_knows_the_place_without_the_file(finished: tuple[Path, str]) -> None:
    made = exported_again(finished[0], "export.face_budget=300")
    assert len(made.faces) <= 300
    assert distance(outer(figure()), made) < 0.02
    # An explicit height wins: then it stands on the ground, as any asset does.
    low, high = exported_again(finished[0], "export.height_meters=0.5").bounds
    assert (low[1], high[1]) == (pytest.approx(0, abs=1e-6), pytest.approx(0.5))
    assert (low + high)[[0, 2]] == pytest.approx([0, 0], abs=1e-6)
    assert high[0] - low[0] > high[2] - low[2], "it lies along X again, as in its file"


def test_rates_are_low_for_a_given_shape_unless_asked_otherwise() -> None:
    def rates(preset: str | None, *overrides: str) -> list[float | None]:
        config = load_config(preset, representation="mesh", overrides=overrides)
        return [stage.rates for stage in stages_of(config).values()]

    file = "representation.initial_mesh=a.glb"
    assert rates(None) == [None, None, None]
    assert rates(None, file) == [REFINING_RATES, REFINING_RATES, None], "texels are no shape"
    assert rates("cpu", file)[0] == REFINING_RATES
    assert rates("cpu", file, "stages.coarse.rates=1", "stages.geometry.rates=0.5")[:2] == [1.0, 0.5]
    splats = load_config(None, representation="gaussians", overrides=["representation.initial_ply=a.ply"])
    assert [stage.rates for stage in stages_of(splats).values()] == [REFINING_RATES, REFINING_RATES, None]


def test_a_broken_file_is_one_line_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.glb").write_bytes(b"glTF")
    file = f"representation.initial_mesh={tmp_path / 'broken.glb'}"
    assert main(["--quiet", "--out", str(tmp_path / "run"), *TINY, file]) == 1
    error = capsys.readouterr().err
    assert "broken.glb" in error and len(error.splitlines()) == 1 and not (tmp_path / "run").exists()


def test_writing_undoes_a_placement_also_of_directions(tmp_path: Path) -> None:
    vertices = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.5]])
    mesh = TriangleMesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    for center, translation in (((1.0, 2.0, 3.0), None), ((1e5, 2.0, 3.0), [1e5, 2.0, 3.0])):
        placement = Placement(0.04, center, 70.0)
        write_glb(tmp_path / "mesh.glb", mesh, placement=placement)
        read = trimesh.load_mesh(tmp_path / "mesh.glb", process=False)
        expected = placement.undo(vertices.double()).numpy()
        assert np.abs(np.asarray(read.vertices) - expected).max() < (1e-6 if translation is None else 1e-4)
        assert np.abs((read.face_normals[read.faces[:, 0] == 0].sum(0) * read.vertex_normals[0]).sum()) > 0
        tree = _tree(tmp_path / "mesh.glb")
        assert tree["nodes"][0].get("translation") == translation
        normals = _attribute(tmp_path / "mesh.glb", "NORMAL")
        assert np.allclose(normals, placement.turn_back(torch.from_numpy(_plain_normals(mesh, tmp_path))), atol=1e-6)


def _plain_normals(mesh: TriangleMesh, folder: Path) -> np.ndarray:
    write_glb(folder / "plain.glb", mesh)
    return _attribute(folder / "plain.glb", "NORMAL")


def _tree(path: Path) -> dict:
    data = path.read_bytes()
    return json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])


def _attribute(path: Path, name: str) -> np.ndarray:
    data, tree = path.read_bytes(), _tree(path)
    start = 28 + struct.unpack("<I", data[12:16])[0]
    accessor = tree["accessors"][tree["meshes"][0]["primitives"][0]["attributes"][name]]
    offset = start + tree["bufferViews"][accessor["bufferView"]]["byteOffset"]
    return np.frombuffer(data, "<f4", accessor["count"] * 3, offset).reshape(-1, 3).copy()
