"""Charts of known surfaces: complete, flat without distortion where that is possible, along creases, no slivers."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from steindreamer.pipelines.meshing import segmentation
from steindreamer.pipelines.meshing.charts import Charts, cut_charts
from steindreamer.pipelines.meshing.flattening import flatten, invalid_charts, signed_areas
from steindreamer.pipelines.meshing.segmentation import Surface


def bumpy_sphere() -> trimesh.Trimesh:
    sphere = trimesh.creation.icosphere(subdivisions=4)
    bumps = 1 + 0.1 * np.sin(7 * sphere.vertices).prod(1) + 0.004 * np.random.default_rng(0).normal(size=2562)
    return trimesh.Trimesh(sphere.vertices * bumps[:, None], sphere.faces, process=False)


def fine_box() -> trimesh.Trimesh:
    box = trimesh.creation.box((2.0, 1.0, 0.5))
    for _ in range(4):
        box = box.subdivide()
    return box


def cut(mesh: trimesh.Trimesh) -> Charts:
    return cut_charts(np.asarray(mesh.vertices), np.asarray(mesh.faces))


@pytest.fixture(scope="module")
def bumpy() -> tuple[trimesh.Trimesh, Charts]:
    mesh = bumpy_sphere()
    return mesh, cut(mesh)


def test_charts_cover_the_surface_once(bumpy: tuple[trimesh.Trimesh, Charts]) -> None:
    mesh, charts = bumpy
    np.testing.assert_array_equal(charts.origin[charts.corners], mesh.faces)
    owners = [set(charts.chart[(charts.corners == vertex).any(1)]) for vertex in range(0, len(charts.origin), 37)]
    assert {len(owner) for owner in owners} == {1}


def test_charts_have_their_area_and_orientation(bumpy: tuple[trimesh.Trimesh, Charts]) -> None:
    mesh, charts = bumpy
    flat = signed_areas(charts.flat, charts.corners)
    assert (flat > 0).all()
    np.testing.assert_allclose(np.bincount(charts.chart, flat), np.bincount(charts.chart, mesh.area_faces), rtol=1e-6)


def test_no_chart_is_a_sliver(bumpy: tuple[trimesh.Trimesh, Charts]) -> None:
    assert np.bincount(bumpy[1].chart).min() >= 10


def test_a_box_is_cut_along_its_edges_without_distortion() -> None:
    mesh = fine_box()
    charts = cut(mesh)
    sides = np.unique(np.c_[charts.chart, np.round(mesh.face_normals).astype(int)], axis=0)
    assert len(sides) == 6
    lengths = [np.linalg.norm(np.diff(points, axis=1), axis=-1) for points in (
        np.asarray(mesh.vertices)[mesh.faces], charts.flat[charts.corners]
    )]  # fmt: skip
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-6)


def test_borders_move_to_a_crease() -> None:
    """Two half-planes at a right angle, with a first border that leaves the crease by one row of triangles."""
    count = 12
    u, v = np.meshgrid(np.arange(2 * count + 1), np.arange(count + 1), indexing="ij")
    vertices = np.stack([np.minimum(u, count), v, np.maximum(u - count, 0)], -1).reshape(-1, 3).astype(float)
    corner = (u * (count + 1) + v)[:-1, :-1].reshape(-1)
    faces = np.stack([corner, corner + count + 1, corner + count + 2, corner, corner + count + 2, corner + 1], 1)
    faces = faces.reshape(-1, 3)
    surface = Surface(vertices, faces)
    side = (surface.centers[:, 2] > 0).astype(np.int64)
    jagged = side.copy()
    jagged[(surface.centers[:, 0] > count - 0.5) & (side == 0) & (surface.centers[:, 1] % 4 < 2)] = 1
    assert (jagged != side).any()
    np.testing.assert_array_equal(segmentation.straightened(surface, jagged), side)


def test_charts_that_fold_over_are_found() -> None:
    sphere = trimesh.creation.icosphere(2)
    faces = np.asarray(sphere.faces)
    # No closed surface is flat without overlap.
    chart = np.zeros(len(faces), np.int64)
    flat = flatten(np.asarray(sphere.vertices), faces, chart)
    assert invalid_charts(np.asarray(sphere.vertices), flat, faces, chart).all()
    upper = faces[sphere.triangles_center[:, 2] > 0.3]
    used, corners = np.unique(upper, return_inverse=True)
    points, corners = np.asarray(sphere.vertices)[used], corners.reshape(-1, 3)
    chart = np.zeros(len(corners), np.int64)
    assert not invalid_charts(points, flatten(points, corners, chart), corners, chart).any()
