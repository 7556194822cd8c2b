"""Closest points on triangle meshes, against closed forms and a search over all triangles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from trimesh.triangles import closest_point

from steindreamer.representations import SurfaceIndex, TriangleMesh, face_normals


def _soup() -> TriangleMesh:
    """Random triangles, the last one without area."""
    generator = torch.Generator().manual_seed(1)
    corners = 0.5 * torch.randn(100, 1, 3, generator=generator) + 0.3 * torch.randn(100, 3, 3, generator=generator)
    corners[-1, 2] = corners[-1, 1]
    return TriangleMesh(corners.reshape(-1, 3), torch.arange(300).reshape(-1, 3))


def _points(count: int) -> torch.Tensor:
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) - 1


def test_the_closest_of_all_triangles_is_found() -> None:
    mesh, points = _soup(), _points(200)
    found = SurfaceIndex(mesh).closest(points)
    corners = mesh.vertices[mesh.faces].double().numpy()
    every = [np.linalg.norm(closest_point(corners, np.repeat(p[None], 100, 0)) - p, axis=1) for p in points.numpy()]
    expected = np.nanmin(np.stack(every), 1)
    assert np.abs(found.distance.numpy() - expected).max() < 1e-6
    where = found.interpolate(mesh.vertices, mesh)
    assert torch.allclose((where - points).norm(dim=1), found.distance, atol=1e-6)
    assert float(found.weights.min()) >= 0 and torch.allclose(found.weights.sum(1), torch.ones(200), atol=1e-6)


def test_the_other_side_of_a_thin_wall_is_skipped() -> None:
    wall = trimesh.creation.box((1.0, 1.0, 0.01))
    mesh = TriangleMesh(torch.tensor(wall.vertices).float(), torch.tensor(wall.faces).long())
    points = torch.tensor([[0.1, 0.2, -0.004], [0.3, -0.2, -0.004]])
    up = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    index = SurfaceIndex(mesh)
    normals = face_normals(mesh.vertices, mesh.faces)
    assert normals[index.closest(points).face][:, 2].tolist() == pytest.approx([-1, -1])
    facing = index.closest(points, up)
    assert normals[facing.face][:, 2].tolist() == pytest.approx([1, 1])
    assert facing.distance.tolist() == pytest.approx([0.009, 0.009])


def test_faces_that_all_look_away_are_used_after_all() -> None:
    mesh = TriangleMesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2]]))
    found = SurfaceIndex(mesh).closest(torch.tensor([[0.2, 0.2, 0.5]]), torch.tensor([[0.0, 0.0, -1.0]]))
    assert found.distance.tolist() == pytest.approx([0.5])
    with pytest.raises(ValueError, match="without faces"):
        SurfaceIndex(TriangleMesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long)))
