"""Normals, lightmaps, colliders, names and the images of an engine, each against a closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.finishing.colliders import build_collider
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.finish import size_for_density, usual_name
from steindreamer.pipelines.finishing.lightmap import lightmap_uvs, overlaps
from steindreamer.pipelines.finishing.lods import collapse
from steindreamer.pipelines.finishing.naming import names_of
from steindreamer.pipelines.finishing.reduce import reduce
from steindreamer.pipelines.finishing.writing.textures import engine_image
from steindreamer.pipelines.meshing.flips import flip_slivers
from steindreamer.pipelines.meshing.normals import corner_normals, split_vertices
from steindreamer.pipelines.meshing.simplify import is_closed_manifold
from steindreamer.representations import TriangleMesh, face_normals


def as_mesh(mesh: object) -> TriangleMesh:
    assert isinstance(mesh, trimesh.Trimesh)
    return TriangleMesh(
        torch.from_numpy(np.array(mesh.vertices, np.float32)), torch.from_numpy(np.array(mesh.faces, np.int64))
    )


def test_a_box_is_sharp_and_a_ball_is_smooth() -> None:
    box, ball = as_mesh(trimesh.creation.box()), as_mesh(trimesh.creation.icosphere(subdivisions=3))
    flat = face_normals(box.vertices, box.faces)[:, None].expand(-1, 3, -1)
    assert torch.allclose(corner_normals(box, 40.0), flat, atol=1e-6)
    assert len(split_vertices(box, 40.0).rows) == 24 and len(split_vertices(box, 100.0).rows) == 8
    around = ball.vertices[ball.faces]
    assert float((corner_normals(ball, 40.0) * around).sum(2).min()) > 0.999
    assert len(split_vertices(ball, 40.0).rows) == len(ball.vertices)


def test_normals_of_faces_that_cancel_are_unit_vectors() -> None:
    corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    sheet = TriangleMesh(corners, torch.tensor([[0, 1, 2], [0, 2, 1]]))
    assert torch.allclose(corner_normals(sheet, 180.0).norm(dim=2), torch.ones(2, 3))


def test_lightmap_charts_do_not_overlap_and_end_on_texel_centers() -> None:
    """Four squares of different sizes that share one place of the atlas: chart by chart, they are moved apart."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * i for i in range(4)])
    sizes = np.repeat([1.0, 0.5, 0.25, 0.125], 4)[:, None]
    vertices = np.concatenate([np.tile(square, (4, 1)) * sizes, np.zeros((16, 1))], 1).astype(np.float32)
    uvs = (np.tile(square, (4, 1)) * 0.2 + np.repeat(np.arange(4), 4)[:, None] * 0.25).astype(np.float32)
    assert overlaps(np.tile(square, (4, 1)), faces, 64) == 1
    out = lightmap_uvs(vertices, uvs, faces, 64)
    assert overlaps(out, faces, 512) == 0 and out.min() >= 0 and out.max() <= 1
    assert np.allclose((out * 64 - 0.5) % 1, 0, atol=1e-4) or np.allclose((out * 64 + 0.5) % 1, 0, atol=1e-4)
    # Charts have one density, up to the rounding to texels.
    widths = np.array([np.ptp(out[4 * i : 4 * i + 4, 0]) * 64 + 1 for i in range(4)])
    assert np.abs(widths / widths[0] - [1, 0.5, 0.25, 0.125]).max() < 2 / widths[0]


def test_too_many_charts_for_a_lightmap_are_refused() -> None:
    count = 100
    vertices = np.random.default_rng(0).random((3 * count, 3)).astype(np.float32)
    uvs = np.random.default_rng(1).random((3 * count, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="100 charts do not fit a lightmap of 32 texels"):
        lightmap_uvs(vertices, uvs, np.arange(3 * count).reshape(-1, 3), 32)


def test_a_convex_mesh_is_its_own_collider() -> None:
    ball = as_mesh(trimesh.creation.icosphere(subdivisions=1))
    collider = build_collider(ball, 8, 64, 0.1)
    assert len(collider.hulls) == 1 and collider.volume_error == pytest.approx(0, abs=0.02)
    assert collider.hausdorff < 0.02


def test_hulls_are_inside_the_mesh_by_a_known_distance() -> None:
    """A box is its own hull; the faces of its collider do not coincide with those of the mesh."""
    for extents in ((1.0, 0.6, 0.4), (1.0, 1.0, 0.001)):
        box = trimesh.creation.box(extents)
        (hull,) = build_collider(as_mesh(box), 4, 32, 0.1).hulls
        gap = np.array(extents) / 2 - hull.vertices.double().abs().numpy()
        diagonal = float(np.linalg.norm(extents))
        assert (gap > -1e-7).all() and 5e-6 * diagonal < gap.min(0)[2] <= 2e-4 * diagonal
        assert gap.min(0)[2] <= 0.0201 * extents[2]


def test_flips_remove_slivers_of_flat_sides_and_keep_the_shape() -> None:
    """A bar whose ends are fans of slivers: from one corner to all points of the opposite edge."""
    count = 50
    along = np.linspace(0, 10, count)
    rim = np.concatenate([np.stack([along, 0 * along], 1), np.stack([along[::-1], 0 * along + 1], 1)])
    points = np.concatenate([np.insert(rim, 2, z, 1) for z in (0.0, 1.0)])
    step, size = np.arange(count - 1), 2 * count
    fan = np.concatenate([[[i, i + 1, size - 1] for i in step], [[count - 1, count + i, count + i + 1] for i in step]])
    side = np.arange(size)
    after = (side + 1) % size
    walls = np.concatenate([np.stack([side, after, after + size], 1), np.stack([side, after + size, side + size], 1)])
    faces = np.concatenate([fan[:, ::-1], fan + size, walls])
    assert is_closed_manifold(faces)

    def measured(each: np.ndarray) -> tuple[float, float, float]:
        """The thinnest triangle (height over longest edge), the area of the surface, and its volume."""
        corners = points[each]
        longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2).max(1)
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        return float((area / longest**2).min()), float(area.sum()) / 2, float(np.linalg.det(corners).sum()) / 6

    flipped = flip_slivers(points, faces)
    assert is_closed_manifold(flipped)
    assert measured(faces) == pytest.approx((0.00202, 42, 10), rel=1e-2)
    thinnest, area, volume = measured(flipped)
    assert thinnest > 0.15 and (area, volume) == pytest.approx((42, 10), rel=1e-9)


def test_no_flip_makes_an_edge_that_exists() -> None:
    """A flat tetrahedron: the other diagonal of its long edge is its opposite edge."""
    points = np.array([[-2.0, 0, 0], [2, 0, 0], [0, 1, 0], [0, -1, 0]])
    faces = np.array([[0, 1, 2], [1, 0, 3], [2, 1, 3], [0, 2, 3]])
    assert is_closed_manifold(faces) and is_closed_manifold(flip_slivers(points, faces))


def test_hulls_fit_an_l_better_than_one_hull() -> None:
    parts = [trimesh.creation.box((1, 0.2, 0.2)), trimesh.creation.box((0.2, 1, 0.2))]
    parts[0].apply_translation([0.4, -0.4, 0])
    shape = trimesh.boolean.union(parts, engine="manifold")
    several, one = (build_collider(as_mesh(shape), hulls, 16, 0.05) for hulls in (4, 1))
    assert several.volume_error is not None and one.volume_error is not None
    assert abs(several.volume_error) < 0.1 < one.volume_error
    assert several.hausdorff < 0.5 * one.hausdorff
    assert all(len(hull.vertices) <= 16 for hull in several.hulls)


def test_collapse_moves_no_vertex_and_keeps_seams_closed() -> None:
    """A tube with a texture seam: the vertices on both sides of the seam are collapsed together."""
    rows, columns = 24, 16
    u, v = np.meshgrid(np.arange(rows + 1) / rows, np.arange(columns + 1) / columns, indexing="ij")
    points = np.stack([np.cos(2 * np.pi * u), 2 * v, np.sin(2 * np.pi * u)], -1).reshape(-1, 3)
    points[rows * (columns + 1) :] = points[: columns + 1]
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    step = columns + 1
    faces = np.concatenate(
        [np.stack([corner, corner + 1, corner + step], 1), np.stack([corner + 1, corner + step + 1, corner + step], 1)]
    )
    attributes = np.stack([u, v], -1).reshape(-1, 2)
    levels = collapse(points.astype(np.float32), attributes, faces, (1.0, 0.5, 0.2))
    for level, most in zip(levels, (768, 384, 160), strict=True):
        assert len(level) <= 1.1 * most
        welded = trimesh.Trimesh(points, level, process=False)
        welded.merge_vertices(digits_vertex=6)
        edges = np.sort(welded.edges, 1)
        _, uses = np.unique(edges, axis=0, return_counts=True)
        rim = np.isin(np.round(welded.vertices[edges[:, 0], 1], 6), (0, 2))
        assert uses.max() == 2 and (uses == 1).sum() <= rim.sum()


def test_an_open_mesh_is_reduced_within_its_budget() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.update_faces(ball.triangles_center[:, 1] < 0.3)
    loose = reduce(as_mesh(ball), 1000, 0.02)
    assert len(loose.faces) < 400 <= len(reduce(as_mesh(ball), 1000, 0.0).faces) <= 1000


def test_a_budget_that_many_parts_cannot_meet_still_gives_a_mesh() -> None:
    balls = [trimesh.creation.icosphere(subdivisions=1) for _ in range(12)]
    for index, ball in enumerate(balls):
        ball.apply_translation([3 * index, 0, 0])
    assert 0 < len(reduce(as_mesh(trimesh.util.concatenate(balls)), 20, 0.0).faces) < 960


def test_texture_size_from_texel_density() -> None:
    """A cube of 0.5 m has 1.5 square meters; at 500 texels per meter they are an image of at least 612 x 612."""
    cube = as_mesh(trimesh.creation.box((2, 2, 2)))
    assert [size_for_density(cube, 0.25, density) for density in (10, 500, 800, 2000)] == [128, 1024, 2048, 4096]
    with pytest.raises(ValueError, match="leave one out"):
        FinishConfig(texture_size=512, texel_density=100)


def test_names() -> None:
    names = names_of("T_old chair-2", ENGINES["unreal"])
    assert (names.mesh, names.material, names.hull(3)) == ("SM_OldChair2", "M_OldChair2", "UCX_SM_OldChair2_03")
    assert names.texture("normal") == "T_OldChair2_N" and names.lod(1) == "SM_OldChair2_LOD1"
    assert names_of("???", ENGINES["print"]).mesh == "Asset"
    assert names_of("chair", ENGINES["godot"]).hull(0) == "SM_Chair_00-convcolonly"


def test_channels_beside_the_file() -> None:
    orm = np.array([[[10, 20, 30]]], np.uint8)
    assert engine_image("occlusion_roughness_metallic", orm, "mask_map", "up").tolist() == [[[30, 10, 0, 235]]]
    assert engine_image("normal", orm, "orm", "down").tolist() == [[[10, 235, 30]]]
    assert engine_image("base_color", orm, "mask_map", "down").tolist() == [[[10, 20, 30]]]


def test_the_asset_of_a_run_is_named_after_the_run(tmp_path: Path) -> None:
    assert usual_name(tmp_path / "red-mug" / "asset" / "asset.glb") == "red-mug"
    assert usual_name(tmp_path / "asset.glb") == "asset"
