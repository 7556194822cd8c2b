"""Repair: welding, orientation, holes and wrapping, with trimesh and manifold3d as oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.repair import orient, repair, weld
from steindreamer.pipelines.finishing.wrap import wrap
from steindreamer.representations import TriangleMesh


def as_mesh(mesh: object) -> TriangleMesh:
    assert isinstance(mesh, trimesh.Trimesh)
    return TriangleMesh(
        torch.from_numpy(np.array(mesh.vertices, np.float32)), torch.from_numpy(np.array(mesh.faces, np.int64))
    )


def oracle(mesh: TriangleMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def soup(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """The mesh with vertices of its own for every face."""
    return trimesh.Trimesh(
        mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False
    )


def test_a_soup_with_random_winding_becomes_a_closed_solid() -> None:
    ball = soup(trimesh.creation.icosphere(subdivisions=2, radius=0.7))
    turned = np.random.default_rng(0).random(len(ball.faces)) < 0.4
    faces = np.where(turned[:, None], ball.faces[:, ::-1], ball.faces)
    broken = trimesh.Trimesh(ball.vertices, np.concatenate([faces, faces[:5], faces[:3, [0, 0, 1]]]), process=False)
    repaired = repair(as_mesh(broken), FinishConfig())
    fixed = oracle(repaired.mesh)
    assert repaired.closed and repaired.method == "welded" and repaired.faces_flipped == turned.sum()
    assert fixed.is_watertight and fixed.is_winding_consistent and len(fixed.faces) == 320
    assert fixed.volume == pytest.approx(trimesh.creation.icosphere(subdivisions=2, radius=0.7).volume, rel=1e-5)


def test_an_inside_out_solid_is_turned() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    repaired = repair(as_mesh(trimesh.Trimesh(ball.vertices, ball.faces[:, ::-1], process=False)), FinishConfig())
    assert oracle(repaired.mesh).volume > 0 and repaired.faces_flipped == len(ball.faces)


def test_orientation_of_a_consistent_mesh_is_kept() -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    vertices, faces = weld(np.asarray(ball.vertices), np.asarray(ball.faces))
    oriented, flipped = orient(vertices, faces)
    assert flipped == 0 and (oriented == faces).all()


def test_small_holes_are_filled_flat() -> None:
    box = trimesh.creation.box((1, 1, 1)).subdivide().subdivide()
    corner = box.triangles_center @ [1, 0, 0] > 0.49
    hole = corner & (np.abs(box.triangles_center[:, 1:]) < 0.2).all(1)
    assert hole.sum() >= 4
    box.update_faces(~hole)
    repaired = repair(as_mesh(box), FinishConfig(holes=0.6))
    assert repaired.method == "filled" and repaired.holes_filled == 1 and repaired.closed
    assert oracle(repaired.mesh).volume == pytest.approx(1, rel=1e-5)


def test_touching_solids_stay_solids() -> None:
    """Two cubes with a common edge: welded, the edge has four faces."""
    one, other = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))
    other.apply_translation([1, 1, 0])
    both = trimesh.util.concatenate([one, other])
    repaired = repair(as_mesh(both), FinishConfig())
    assert repaired.crowded_edges == 1 and repaired.closed and repaired.method == "welded"
    assert oracle(repaired.mesh).volume == pytest.approx(2)


def test_wrapping_fills_what_cannot_be_reached() -> None:
    """Two overlapping balls, one inside out: their union, whose volume the oracle computes by a boolean operation."""
    one, other = (trimesh.creation.icosphere(subdivisions=3, radius=0.5) for _ in range(2))
    other.apply_translation([0.4, 0, 0])
    union = trimesh.boolean.union([one, other], engine="manifold")
    flipped = trimesh.Trimesh(other.vertices, other.faces[:, ::-1], process=False)
    wrapped = oracle(wrap(as_mesh(trimesh.util.concatenate([one, flipped])), 64))
    assert wrapped.is_watertight and wrapped.volume == pytest.approx(union.volume, rel=0.02)


def test_a_sheet_gets_a_thickness() -> None:
    sheet = TriangleMesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]]), torch.tensor([[0, 2, 1], [0, 3, 2]])
    )
    wrapped = oracle(wrap(sheet, 50))
    assert wrapped.is_watertight and 0 < wrapped.volume < 0.02
    assert np.ptp(wrapped.bounds, axis=0) == pytest.approx([1, 0.0, 1], abs=0.03)


def test_never_leaves_the_surface_open() -> None:
    box = trimesh.creation.box((1, 1, 1))
    box.update_faces(np.arange(12) > 1)
    repaired = repair(as_mesh(box), FinishConfig(repair="never"))
    assert not repaired.closed and len(repaired.mesh.faces) == 10 and repaired.open_edges == 4


def test_sheets_that_are_stored_once_per_side_are_not_lost() -> None:
    """A box beside a board of two opposite sheets: as a solid, the sheets would cancel."""
    box = trimesh.creation.box((0.2, 0.2, 0.2))
    vertices = np.array([[0.5, 0.0, 0.0], [0.9, 0.0, 0.0], [0.9, 0.4, 0.0], [0.5, 0.4, 0.0]])
    sides = np.array([[0, 1, 2], [0, 2, 3]])
    board = trimesh.Trimesh(np.concatenate([vertices, vertices]), np.concatenate([sides, sides[:, ::-1] + 4]))
    both = as_mesh(trimesh.util.concatenate([box, board]))
    repaired = repair(both, FinishConfig(wrap_resolution=64))
    assert repaired.closed and repaired.method == "wrapped"
    assert float(repaired.mesh.vertices[:, 0].max()) > 0.89 and float(repaired.mesh.vertices[:, 0].min()) < -0.09
