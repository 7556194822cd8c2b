"""Extraction: shapes with a known distance come back within a voxel and a half, closed and with the right genus."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from analytic_scene import Distance, FieldScene, RenderedScene, box, sphere, torus, union

from steindreamer.pipelines.meshing.simplify import is_closed_manifold
from steindreamer.pipelines.meshing.surface import SurfaceConfig, extract_surface
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.representations import TriangleMesh

RESOLUTION = 64


def config(source: str) -> SurfaceConfig:
    return SurfaceConfig(source=source, resolution=RESOLUTION, cameras=24, view_size=144)


def euler_number(mesh: TriangleMesh) -> int:
    return len(mesh.vertices) - 3 * len(mesh.faces) // 2 + len(mesh.faces)


def signed_volume(mesh: TriangleMesh) -> float:
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("source", ["renders", "field"])
@pytest.mark.parametrize(
    ("distance", "extent", "euler", "volume"),
    [
        (sphere(0.6), 1.2, 2, 4 / 3 * np.pi * 0.6**3),
        (torus(0.6, 0.15), 1.5, 0, 2 * np.pi**2 * 0.6 * 0.15**2),
        (box(0.5, 0.3, 0.4), 1.0, 2, 8 * 0.5 * 0.3 * 0.4),
    ],
    ids=["sphere", "torus", "box"],
)
def test_known_shapes_come_back(source: str, distance: Distance, extent: float, euler: int, volume: float) -> None:
    mesh = extract_surface(FieldScene(distance), config(source))
    voxel = extent / RESOLUTION
    error = distance(mesh.vertices).abs()
    assert float(error.mean()) < voxel
    assert float(error.max()) < 1.5 * voxel
    assert euler_number(mesh) == euler
    assert is_closed_manifold(mesh.faces.numpy())
    assert signed_volume(mesh) == pytest.approx(volume, rel=0.12)


def test_thin_ring_survives_next_to_a_large_body() -> None:
    distance = union(sphere(0.4), torus(0.8, 0.03))
    mesh = extract_surface(RenderedScene(distance), SurfaceConfig(resolution=96, cameras=24, view_size=128))
    ring = mesh.vertices[mesh.vertices[:, [0, 2]].norm(dim=1) > 0.7]
    angle = torch.atan2(ring[:, 0], ring[:, 2]).sort().values
    assert float(torch.diff(angle).max()) < 0.1, "the ring is broken"


@pytest.mark.parametrize("source", ["renders", "field"])
def test_hollow_shell_becomes_solid(source: str) -> None:
    mesh = extract_surface(FieldScene(sphere(0.6), shell=0.06), config(source))
    assert float(mesh.vertices.norm(dim=1).min()) > 0.55, "an inner wall is left"
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.08)


def test_hollow_behind_a_pinhole_becomes_solid() -> None:
    def pierced(p: torch.Tensor) -> torch.Tensor:
        wall = (p.norm(dim=-1) - 0.54).abs() - 0.06
        return torch.maximum(wall, 0.025 - p[..., [0, 2]].norm(dim=-1))

    mesh = extract_surface(FieldScene(pierced), config("field"))
    assert float(mesh.vertices.norm(dim=1).min()) > 0.3, "the inner wall is left"
    assert signed_volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=0.08)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_level_follows_the_density(scale: float) -> None:
    mesh = extract_surface(FieldScene(sphere(0.6), scale=scale), config("field"))
    assert float(mesh.vertices.norm(dim=1).mean()) == pytest.approx(0.6, abs=0.015)


@pytest.mark.parametrize("opacity", [0.2, 0.6])
def test_translucent_scene_keeps_its_outline(opacity: float) -> None:
    mesh = extract_surface(RenderedScene(sphere(0.6), opacity=opacity), config("renders"))
    assert float(mesh.vertices.norm(dim=1).mean()) == pytest.approx(0.6, abs=0.02)


def test_empty_scene_says_so() -> None:
    with pytest.raises(ValueError, match=r"the scene is empty: largest opacity over 24 views is 0\.03"):
        extract_surface(RenderedScene(sphere(), opacity=0.03), config("auto"))


def test_unusable_sources_are_named() -> None:
    scene = RenderedScene(sphere())
    views = take_views(scene, 8, 48)
    with pytest.raises(ValueError, match="RenderedScene has none"):
        extract_surface(scene, config("field"), views)
    with pytest.raises(ValueError, match="RenderedScene is not one"):
        extract_surface(scene, config("mesh"), views)
    with pytest.raises(ValueError, match="choose auto, renders, field or mesh"):
        extract_surface(scene, config("photographs"), views)
