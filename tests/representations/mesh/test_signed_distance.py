"""Signed distances to triangle meshes against closed forms."""

import math

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from steindreamer.representations import TriangleMesh
from steindreamer.representations.mesh.signed_distance import signed_distance


def from_trimesh(mesh: trimesh.Trimesh) -> TriangleMesh:
    vertices, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int64)
    return TriangleMesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def random_points(count: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) - 1


def box_distance(points: Tensor, half: Tensor) -> Tensor:
    beyond = points.abs() - half
    return beyond.clamp_min(0).norm(dim=1) + beyond.amax(1).clamp_max(0)


def test_box_is_exact() -> None:
    """The points include some nearest to faces, to edges and to corners."""
    half = torch.tensor([0.5, 0.2, 0.35])
    mesh = from_trimesh(trimesh.creation.box(2 * half.numpy()))
    points = random_points(5000)
    torch.testing.assert_close(signed_distance(points, mesh), box_distance(points, half), atol=1e-6, rtol=0)


def test_sphere() -> None:
    mesh = from_trimesh(trimesh.creation.icosphere(subdivisions=5, radius=0.6))
    points = random_points(5000)
    expected = points.norm(dim=1) - 0.6
    # Maximum distance of the flat triangles inside the sphere.
    sagitta = 0.6 * (1 - math.cos(0.5 * 1.2 / 2**5))
    torch.testing.assert_close(signed_distance(points, mesh), expected, atol=2 * sagitta, rtol=0)


def test_torus() -> None:
    mesh = from_trimesh(trimesh.creation.torus(0.6, 0.2, major_sections=256, minor_sections=128))
    points = random_points(5000)
    expected = torch.hypot(torch.hypot(points[:, 0], points[:, 1]) - 0.6, points[:, 2]) - 0.2
    torch.testing.assert_close(signed_distance(points, mesh), expected, atol=2e-4, rtol=0)


def test_every_distance_is_the_smallest_over_all_triangles() -> None:
    """Comparison with brute force over randomly ordered triangles."""
    generator = torch.Generator().manual_seed(1)
    corners = 0.5 * torch.randn(100, 1, 3, generator=generator) + 0.3 * torch.randn(100, 3, 3, generator=generator)
    mesh = TriangleMesh(corners.reshape(-1, 3), torch.arange(300).reshape(-1, 3))
    points = random_points(200)
    soup = trimesh.Trimesh(corners.reshape(-1, 3).numpy(), np.arange(300).reshape(-1, 3), process=False)
    nearest = [
        trimesh.triangles.closest_point(soup.triangles, np.repeat(point[None], 100, 0)) for point in points.numpy()
    ]
    expected = [np.linalg.norm(feet - point, axis=1).min() for feet, point in zip(nearest, points.numpy(), strict=True)]
    distance = signed_distance(points, mesh).abs()
    torch.testing.assert_close(distance, torch.tensor(np.array(expected), dtype=torch.float32), atol=1e-6, rtol=1e-5)


def test_the_inside_of_overlapping_parts_is_their_union() -> None:
    left, right = (trimesh.creation.icosphere(subdivisions=3, radius=0.5) for _ in range(2))
    left.apply_translation([-0.25, 0, 0])
    right.apply_translation([0.25, 0, 0])
    one, other = from_trimesh(left), from_trimesh(right)
    faces = torch.cat([one.faces, other.faces + len(one.vertices)])
    mesh = TriangleMesh(torch.cat([one.vertices, other.vertices]), faces)
    points = random_points(4000)
    offset = torch.tensor([0.25, 0, 0])
    nearest = torch.minimum((points - offset).norm(dim=1), (points + offset).norm(dim=1))
    clear = (nearest - 0.5).abs() > 0.01
    assert torch.equal(signed_distance(points, mesh)[clear] < 0, nearest[clear] < 0.5)


def test_a_small_hole_does_not_flip_the_sign() -> None:
    mesh = from_trimesh(trimesh.creation.icosphere(subdivisions=3, radius=0.6))
    holed = TriangleMesh(mesh.vertices, mesh.faces[5:])
    points = random_points(2000)
    clear = (points.norm(dim=1) - 0.6).abs() > 0.1
    assert torch.equal(signed_distance(points, holed)[clear] < 0, points.norm(dim=1)[clear] < 0.6)


def test_degenerate_triangles_do_not_matter() -> None:
    mesh = from_trimesh(trimesh.creation.icosphere(subdivisions=2, radius=0.6))
    a, b, c = mesh.faces[:10].T
    flat = torch.cat([mesh.faces, torch.stack([a, a, a], 1), torch.stack([b, b, c], 1), torch.stack([c, a, c], 1)])
    points = random_points(1000)
    expected = signed_distance(points, mesh)
    distance = signed_distance(points, TriangleMesh(mesh.vertices, flat))
    torch.testing.assert_close(distance, expected, atol=1e-6, rtol=0)


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(ValueError, match="without faces"):
        signed_distance(random_points(3), TriangleMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
