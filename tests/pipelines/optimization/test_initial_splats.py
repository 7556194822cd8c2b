"""From splats of any size and place to an asset, or to one line that says why not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.meshing.iso_level import best_level
from steindreamer.pipelines.meshing.packing import pack
from steindreamer.pipelines.meshing.tsdf import Grid
from steindreamer.pipelines.meshing.unwrap import unwrap
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.representations import (
    Gaussians,
    TriangleMesh,
    read_gaussian_glb,
    read_gaussian_ply,
    write_gaussian_glb,
)

TINY = [
    "--prompt", "a red mug", "--no-refine", "--quiet", "stages.coarse.steps=8", "stages.coarse.resolution=16",
    "stages.coarse.warmup_resolution=16", "prior.name=world", "prior.objects=1", "stages.coarse.probe_every=0",
    "representation.densify.start=0", "representation.densify.interval=1", "representation.densify.grow_fraction=0",
    "output.image_size=16", "output.turntable_frames=2",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.lods=[1]", "export.hulls=0",
    "export.face_budget=400",
]  # fmt: skip


def shell(size: float, place: tuple[float, float, float]) -> Gaussians:
    """200 splats on a sphere of radius 0.4 `size`, wide enough to close it."""
    points = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    scales = torch.full((200, 3), float(np.log(0.05 * size)))
    quaternions = torch.tensor([1.0, 0, 0, 0]).repeat(200, 1)
    means = 0.4 * size * points + torch.tensor(place)
    return Gaussians(means, scales, quaternions, torch.full((200,), 4.0), torch.zeros(200, 3))


def test_a_run_ends_where_the_file_was(tmp_path: Path) -> None:
    given = shell(2.5, (8.0, 0.0, 3.0))
    write_gaussian_glb(given, tmp_path / "given.glb")
    folder = tmp_path / "run"
    settings = [f"representation.initial_ply={tmp_path / 'given.glb'}", "representation.formats=[ply,glb]"]
    assert main([*TINY, "--out", str(folder), *settings]) == 0
    after = read_gaussian_ply(folder / "asset" / "asset.ply")
    assert len(after) == 200
    assert float((after.means - given.means).detach().norm(dim=1).max()) < 0.25
    assert torch.equal(read_gaussian_glb(folder / "asset" / "asset_splats.glb").means, after.means)
    mesh = trimesh.load_mesh(folder / "asset" / "asset.glb")
    assert mesh.centroid == pytest.approx([8.0, 0.0, 3.0], abs=0.3)
    assert mesh.extents.max() == pytest.approx(0.8 * 2.5, rel=0.4)
    (tmp_path / "given.glb").unlink()
    assert main(["--resume", "--out", str(folder), "--quiet"]) == 0  # the checkpoint holds the scene


def test_what_cannot_start_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe that nobody writes to: not waited for either."""
    os.mkfifo(tmp_path / "given.ply")
    folder = tmp_path / "run"
    assert main([*TINY, "--out", str(folder), f"representation.initial_ply={tmp_path / 'given.ply'}"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'given.ply'} is a pipe, not a file\n"
    assert not folder.exists()


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e6])
def test_surfaces_of_any_size_are_unwrapped(size: float) -> None:
    sphere = trimesh.creation.icosphere(2, 0.5)
    vertices, faces = torch.from_numpy(sphere.vertices * size).float(), torch.from_numpy(sphere.faces).long()
    mesh = unwrap(TriangleMesh(vertices, faces), 64, 2)
    assert mesh.uvs is not None and 0 <= float(mesh.uvs.min()) and float(mesh.uvs.max()) <= 1
    a, b, c = mesh.uvs[mesh.faces].unbind(1)
    area = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs().sum() / 2
    assert float(area) > 0.3


def test_surfaces_without_a_size_are_refused() -> None:
    for vertices, message in [(torch.zeros(3, 3), "longest side is 0"), (torch.full((3, 3), torch.nan), "is nan")]:
        with pytest.raises(ValueError, match=message):
            unwrap(TriangleMesh(vertices, torch.tensor([[0, 1, 2]])), 64, 2)
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    for charts, message in [(line[:, :2], "their area is 0"), (line[:, :2] * torch.nan, "not finite")]:
        with pytest.raises(ValueError, match=message):
            pack(charts.numpy(), np.array([[0, 1, 2]]), np.array([0]), 64, 2)


@pytest.mark.parametrize(("value", "message"), [(-1.0, "no view shows any part"), (np.nan, "is not finite")])
def test_volumes_without_a_level_are_refused(value: float, message: str) -> None:
    views = take_views(shell(1.0, (0.0, 0.0, 0.0)), 8, 32)
    grid = Grid(np.full(3, -1.0), 0.25, (8, 8, 8))
    with pytest.raises(ValueError, match=message):
        best_level(np.full(grid.shape, value, np.float32), grid, views, 0.5)
