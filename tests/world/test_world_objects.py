"""The procedural world's shapes and objects."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from steindreamer.representations import TriangleMesh
from steindreamer.world import KINDS, caption_of, random_caption, sample_object
from steindreamer.world.colors import COLORS
from steindreamer.world.parts import Part, around, both_sides, merge
from steindreamer.world.shapes import (
    arc,
    box,
    cone,
    cylinder,
    ellipsoid,
    extrude,
    lathe,
    loft,
    ovals,
    sphere,
    torus,
    tube,
)

GRAY = np.array((0.5, 0.5, 0.5))
L_SHAPE = [(0, 0), (2, 0), (2, 1), (1, 1), (1, 2), (0, 2)]

# Each shape with the volume of the smooth solid it stands for, and how far its flat facets may stay below that.
SOLIDS: dict[str, tuple[Part, float, float]] = {
    "ellipsoid": (ellipsoid((1, 2, 0.5), GRAY), 4 / 3 * np.pi, 0.05),
    "sphere": (sphere(1, GRAY, (3, 2, 1)), 4 / 3 * np.pi, 0.05),
    "sharp box": (box((1, 2, 3), GRAY, bevel=0), 6, 1e-9),
    "beveled box": (box((1, 1, 1), GRAY, bevel=0.2), 0.945333, 1e-5),
    "tapered box": (box((2, 1, 2), GRAY, bevel=0, taper=(0.5, 0.5)), 7 / 3, 0.04),
    "lathe": (lathe([(0, 0), (1, 0), (1, 1), (0.5, 1), (0.5, 2), (0, 2)], GRAY), 1.25 * np.pi, 0.02),
    "cylinder": (cylinder(1, 2, GRAY), 2 * np.pi, 0.02),
    "cone": (cone(1, 3, GRAY), np.pi, 0.02),
    "torus": (torus(1, 0.25, GRAY), 2 * np.pi**2 / 16, 0.08),
    "tube": (tube([(0, 0, 0), (2, 0, 0), (4, 0, 0)], 0.5, GRAY, sides=24), np.pi * (1 + 1 / 6), 0.03),
    "bent tube": (tube(arc((1, 1), 0, 90, count=20), 0.2, GRAY, sides=24), 0.04 * np.pi * (np.pi / 2 + 4 / 15), 0.05),
    "concave extrusion": (extrude(L_SHAPE, 0.5, GRAY), 1.5, 1e-9),
    "beveled extrusion": (extrude(L_SHAPE, 0.5, GRAY, bevel=0.05), 1.480333, 1e-6),
    "loft": (loft(ovals([(0, 0, 0), (1, 2, 0)], [(1, 0.5), (1, 0.5)]), GRAY), np.pi, 0.02),
}


def corner_normals(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Unit face normals and the unit vertex normals at the faces' three corners."""
    a, b, c = (part.vertices[part.faces[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    return face / np.linalg.norm(face, axis=1, keepdims=True), part.normals[part.faces]


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_enclose_their_volume(name: str) -> None:
    part, volume, shortfall = SOLIDS[name]
    assert volume * (1 - shortfall) <= part.signed_volume() <= volume * (1 + 1e-6)


@pytest.mark.parametrize("name", SOLIDS)
def test_solids_are_closed(name: str) -> None:
    """Every directed edge is met by as many in the opposite direction, vertices identified by position."""
    part = SOLIDS[name][0]
    place = np.unique(np.round(part.vertices, 6), axis=0, return_inverse=True)[1].reshape(-1)
    edges = Counter((int(place[f[k]]), int(place[f[k - 2]])) for f in part.faces for k in range(3))
    assert all(edges[(b, a)] == count for (a, b), count in edges.items())


@pytest.mark.parametrize("name", SOLIDS)
def test_normals_are_unit_and_agree_with_the_winding(name: str) -> None:
    moved = SOLIDS[name][0].turned("x", 30).scaled(1.2, -0.8, 1).pointing(1, 2, -0.5)  # a mirroring, too
    assert moved.signed_volume() > 0
    face, corners = corner_normals(moved)
    np.testing.assert_allclose(np.linalg.norm(moved.normals, axis=1), 1, atol=1e-9)
    assert np.einsum("ij,ikj->ik", face, corners).min() > 0.3


def test_turning_is_counter_clockwise_and_pointing_takes_up_there() -> None:
    tip = cone(0.1, 1, GRAY)
    highest = int(tip.vertices[:, 1].argmax())
    np.testing.assert_allclose(tip.turned("z", 90).vertices[highest], [-1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(tip.turned("x", 90).vertices[highest], [0, 0, 1], atol=1e-9)
    for direction in ((1, 2, 3), (0, 0, -1), (0, -1, 0)):
        expected = np.array(direction) / np.linalg.norm(direction)
        np.testing.assert_allclose(tip.pointing(*direction).vertices[highest], expected, atol=1e-9)


def test_copies_are_counted_and_keep_their_volume() -> None:
    part = sphere(0.5, GRAY, (2, 0, 0))
    for copies, count in ((around(part, 5), 5), (both_sides(part), 2), (merge([part, part]), 2)):
        assert len(copies.faces) == count * len(part.faces)
        assert copies.signed_volume() == pytest.approx(count * part.signed_volume())


def test_extruding_a_line_is_refused() -> None:
    with pytest.raises(ValueError, match="simple polygon"):
        extrude([(0, 0), (1, 0), (2, 0), (3, 0)], 1, GRAY)


def objects(name: str, seeds: int = 3) -> list[TriangleMesh]:
    return [
        sample_object(random_caption(rng, name), rng)
        for rng in (np.random.default_rng(seed) for seed in range(seeds))
    ]  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_objects_are_sound_meshes(name: str) -> None:
    for mesh in objects(name):
        assert mesh.normals is not None and mesh.colors is not None
        assert 200 <= len(mesh.faces) <= 5000
        assert mesh.vertices.isfinite().all()
        assert mesh.vertices.norm(dim=1).max().item() == pytest.approx(0.9, abs=1e-5)
        torch.testing.assert_close(mesh.vertices.amin(0), -mesh.vertices.amax(0), atol=1e-5, rtol=0)
        assert 0 <= mesh.faces.min() and mesh.faces.max() < len(mesh.vertices)
        torch.testing.assert_close(mesh.normals.norm(dim=1), torch.ones(len(mesh.normals)), atol=1e-5, rtol=0)
        assert 0 <= mesh.colors.min() and mesh.colors.max() <= 1


@pytest.mark.parametrize("name", KINDS)
def test_objects_face_outward(name: str) -> None:
    for mesh in objects(name):
        assert mesh.normals is not None
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        face = torch.linalg.cross(b - a, c - a)
        assert face.norm(dim=1).min() > 0, "a triangle without area"
        agreement = (torch.nn.functional.normalize(face, dim=1)[:, None] * mesh.normals[mesh.faces]).sum(-1).mean(1)
        assert agreement.min() > 0.3 and (agreement > 0.5).float().mean() > 0.99
        assert (a * torch.linalg.cross(b, c)).sum() > 0


@pytest.mark.parametrize("name", KINDS)
def test_objects_vary_by_seed_and_repeat_with_it(name: str) -> None:
    caption = caption_of(name, KINDS[name].default)
    first, again, other = (sample_object(caption, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert torch.equal(first.vertices, again.vertices) and torch.equal(first.faces, again.faces)
    assert first.colors is not None and again.colors is not None and torch.equal(first.colors, again.colors)
    assert first.vertices.shape != other.vertices.shape or (first.vertices - other.vertices).abs().max() > 0.01


@pytest.mark.parametrize("name", KINDS)
def test_the_captions_color_is_on_the_object(name: str) -> None:
    """At least a tenth of the surface lies near the caption's color, and it was not there by nature."""
    for color in KINDS[name].colors[:3]:
        mesh = sample_object(caption_of(name, color), np.random.default_rng(1))
        assert mesh.colors is not None
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        area = torch.linalg.cross(b - a, c - a).norm(dim=1)
        distance = (mesh.colors[mesh.faces[:, 0]] - torch.tensor(COLORS[color])).abs().amax(1)
        assert area[distance < 0.25].sum() > 0.1 * area.sum()


def test_fronts_face_plus_z() -> None:
    """A duck's orange beak is its foremost part, a mug's handle reaches to the right only."""
    duck = sample_object(caption_of("duck", "blue"), np.random.default_rng(0))
    assert duck.colors is not None
    foremost = duck.colors[duck.vertices[:, 2].argmax()]
    assert foremost[0] > 0.7 > foremost[2] + 0.3
    mug = sample_object(caption_of("mug", "red"), np.random.default_rng(0)).vertices
    assert mug[mug[:, 0] > 0.3, 2].abs().max() < mug[mug[:, 0] < -0.3, 2].abs().max() + 0.2
    right, left = mug[mug[:, 0] > 0.95 * mug[:, 0].max()], mug[mug[:, 0] < 0.95 * mug[:, 0].min()]
    assert right[:, 1].max() < 0.5 * mug[:, 1].max() < left[:, 1].max()
