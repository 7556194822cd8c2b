"""Finishing of a file of 3D Gaussians: its surface, colors, size and position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch.nn.functional import normalize

from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.finishing import splats
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.source import Source, read_source
from steindreamer.representations import (
    Gaussians,
    GaussiansConfig,
    read_gaussian_ply,
    write_gaussian_glb,
    write_gaussian_ply,
)
from steindreamer.representations.gaussians.file import is_splat_file

RADIUS, CENTER = 0.3, (5.0, 1.0, -2.0)


def small_source(path: Path, monkeypatch: pytest.MonkeyPatch, resolution: int = 24) -> Source:
    monkeypatch.setattr(splats, "VIEWS", 16)
    monkeypatch.setattr(splats, "VIEW_SIZE", 64)
    return read_source(path, FinishConfig(wrap_resolution=resolution, texture_size=64, tolerance=0.02))


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Opaque Gaussians on a sphere: red above its center, blue below."""
    points = normalize(torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    colors = torch.where(points[:, 1:2] > 0, torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.1, 0.8]))
    path = tmp_path_factory.mktemp("splats") / "ball.ply"
    scene = Gaussians.from_points(points * RADIUS + torch.tensor(CENTER), colors, GaussiansConfig(opacity=0.95))
    write_gaussian_ply(scene, path)
    return path


def test_splats_become_a_closed_surface_with_their_colors(ball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = small_source(ball, monkeypatch)
    mesh = source.mesh
    points = source.placement.undo(mesh.vertices.double()).numpy() - CENTER
    distance = np.linalg.norm(points, axis=1)
    # Gaussians end outside their centers, and the space between them is a little deeper.
    assert np.quantile(distance, [0.1, 0.9]) == pytest.approx(RADIUS, rel=0.2)
    shape = trimesh.Trimesh(points, mesh.faces.numpy(), process=False)
    shape.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=6)
    assert shape.is_watertight and shape.volume == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.4)
    middle = torch.full((len(mesh.faces), 3), 1 / 3)
    colors = mesh.colors_at(torch.arange(len(mesh.faces)), middle)
    height = torch.from_numpy(points[mesh.faces.numpy()].mean(1)[:, 1])
    above, below = colors[height > 0.1 * RADIUS].mean(0), colors[height < -0.1 * RADIUS].mean(0)
    assert float(above[0] - above[2]) > 0.5 and float(below[2] - below[0]) > 0.5


def test_a_stray_splat_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = normalize(torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    stray = torch.cat([points, torch.tensor([[1.3, 0.0, 0.0]] * 3)])
    scene = Gaussians.from_points(stray, torch.full((1503, 3), 0.5), GaussiansConfig(opacity=0.95))
    with torch.no_grad():
        scene.log_scales[-3:] = float(np.log(0.035))
    write_gaussian_ply(scene, tmp_path / "stray.ply")
    mesh = small_source(tmp_path / "stray.ply", monkeypatch, 48).mesh
    shape = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    shape.merge_vertices(merge_tex=True, merge_norm=True, digits_vertex=6)
    assert shape.body_count == 1


def test_splat_files_are_recognized(ball: Path, tmp_path: Path) -> None:
    trimesh.creation.box().export(tmp_path / "box.ply")
    write_gaussian_glb(read_gaussian_ply(ball), tmp_path / "ball.glb")
    assert is_splat_file(ball) and not is_splat_file(tmp_path / "box.ply")
    for path in (ball, tmp_path / "ball.glb"):
        with pytest.raises(UserError, match="no triangles to keep"):
            read_source(path, FinishConfig(keep=True))
    (tmp_path / "packed.ply").write_bytes(
        b"ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty uint packed_position\nend_header\n\0\0\0\0"
    )
    with pytest.raises(UserError, match="compressed one: save it uncompressed"):
        read_source(tmp_path / "packed.ply", FinishConfig())
