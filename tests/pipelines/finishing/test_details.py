"""Levels of detail and a collider in files beside an asset."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh

from steindreamer.pipelines.export import ExportConfig, unwrap, write_glb
from steindreamer.pipelines.finishing import details
from steindreamer.pipelines.finishing.details import write_details
from steindreamer.representations import TriangleMesh, vertex_normals

CONFIG = ExportConfig(lods=[1.0, 0.5, 0.2], hulls=2)


def parse(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def arrays(path: Path, mesh: int) -> dict[str, bytes]:
    """The bytes of the attributes and indices of a mesh."""
    tree, body = parse(path)
    primitive = tree["meshes"][mesh]["primitives"][0]
    found = {**primitive["attributes"], "indices": primitive["indices"]}
    views = {name: tree["bufferViews"][tree["accessors"][accessor]["bufferView"]] for name, accessor in found.items()}
    return {name: body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] for name, view in views.items()}


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A textured ball of 320 triangles and a height of 0.2 m, red above and blue below."""
    shape = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    mesh = TriangleMesh(
        torch.from_numpy(np.array(shape.vertices, np.float32)), torch.from_numpy(np.array(shape.faces, np.int64))
    )
    mesh = unwrap(mesh, 128, 2)
    texture = torch.full((3, 128, 128), 0.2)
    texture[0, :64] = texture[2, 64:] = 0.9
    mesh = TriangleMesh(
        mesh.vertices, mesh.faces, vertex_normals(mesh.vertices, mesh.faces), uvs=mesh.uvs, texture=texture
    )
    write_glb(tmp_path / "ball.glb", mesh, name="red ball", height_meters=0.2)
    return tmp_path / "ball.glb"


def test_levels_share_the_atlas_of_a_file_that_stays_as_it_is(ball: Path) -> None:
    before, (old, _) = ball.read_bytes(), parse(ball)
    report = write_details(ball, CONFIG)
    lods = ball.with_name("ball_lods.glb")
    tree, _ = parse(lods)
    assert ball.read_bytes() == before and arrays(lods, 0) == arrays(ball, 0)
    assert [node["name"] for node in tree["nodes"]] == ["red ball", "red ball_LOD1", "red ball_LOD2"]
    assert tree["scenes"][0]["nodes"] == [0] and tree["nodes"][0]["extensions"]["MSFT_lod"]["ids"] == [1, 2]
    assert len(tree["images"]) == len(old["images"])
    assert {mesh["primitives"][0]["material"] for mesh in tree["meshes"]} == {0}
    counts = [tree["accessors"][mesh["primitives"][0]["indices"]]["count"] // 3 for mesh in tree["meshes"]]
    assert counts == [level.triangles for level in report.levels]
    assert counts[0] == 320 and counts[1] <= 0.55 * 320 and counts[2] <= 0.25 * 320
    assert report.levels[0].switch_distance == 0 < report.levels[1].switch_distance <= report.levels[2].switch_distance
    assert 0.8 < report.levels[2].silhouette_iou < report.levels[1].silhouette_iou < 1


def test_the_collider_has_the_place_and_the_size_of_the_asset(ball: Path) -> None:
    report = write_details(ball, CONFIG)
    scene = trimesh.load_scene(ball.with_name("ball_collider.glb"))
    assert report.collider is not None and len(scene.geometry) == report.collider.hulls
    assert all(hull.is_convex and hull.is_watertight for hull in scene.geometry.values())
    assert next(iter(scene.geometry)) == "red ball_Collider_00"
    assert np.allclose(scene.bounds, [[-0.1, 0, -0.1], [0.1, 0.2, 0.1]], atol=0.01)
    assert report.collider.hausdorff < 0.06


def test_nothing_is_written_if_nothing_is_wanted(ball: Path) -> None:
    report = write_details(ball, ExportConfig(lods=[1.0], hulls=0))
    assert report.collider is None and len(report.levels) == 1
    assert [path.name for path in ball.parent.iterdir()] == ["ball.glb"]


def test_levels_are_baked_anew_without_meshoptimizer(ball: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(details, "can_collapse", lambda: False)
    report = write_details(ball, CONFIG)
    tree, _ = parse(ball.with_name("ball_lods.glb"))
    assert [level.own_atlas for level in report.levels] == [False, True, True]
    assert [mesh["primitives"][0]["material"] for mesh in tree["meshes"]] == [0, 1, 2]
    assert [node["name"] for node in tree["nodes"]] == ["red ball", "red ball_LOD1", "red ball_LOD2"]
    for level, limit in ((1, 3.0), (2, 5.0)):
        difference = report.levels[level].color_difference
        assert difference is not None and difference < limit
        accessor = tree["accessors"][tree["meshes"][level]["primitives"][0]["attributes"]["POSITION"]]
        assert np.allclose([accessor["min"], accessor["max"]], [[-0.1, 0, -0.1], [0.1, 0.2, 0.1]], atol=0.015)


@pytest.mark.parametrize("shared", [True, False])
def test_levels_of_a_file_are_replaced_and_leave_nothing_behind(
    shared: bool, ball: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(details, "can_collapse", lambda: shared)
    write_details(ball, CONFIG)
    monkeypatch.undo()
    first = ball.with_name("ball_lods.glb")
    write_details(first, CONFIG)
    write_details(ball, CONFIG)
    tree, again = parse(first)[0], parse(ball.with_name("ball_lods_lods.glb"))[0]
    assert again == tree
    assert arrays(ball.with_name("ball_lods_lods.glb"), 2) == arrays(first, 2)
