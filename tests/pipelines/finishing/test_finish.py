"""Finishing of small files: what lands in the folder, and how near it is to the source."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.finishing import looks
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.finish import finish
from steindreamer.representations.mesh.file import read_mesh

SMALL = FinishConfig(texture_size=128, triangles=400, lods=[1.0, 0.4], hulls=4, lightmap_size=128, lod_atlas="shared")


def glb_tree(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length])


def write_checkered_bowl(path: Path) -> Path:
    """An OBJ of quads, with two textured materials and one texture seam: a thick torus, halves in two materials."""
    rows, columns = 24, 12
    u, v = np.meshgrid(np.arange(rows + 1) / rows, np.arange(columns + 1) / columns, indexing="ij")
    ring = 0.3 + 0.12 * np.cos(2 * np.pi * v)
    points = np.stack([ring * np.cos(2 * np.pi * u), 0.12 * np.sin(2 * np.pi * v), -ring * np.sin(2 * np.pi * u)], -1)
    lines = ["mtllib bowl.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points.reshape(-1, 3)]
    lines += [f"vt {a:.6f} {b:.6f}" for a, b in np.stack([u, v], -1).reshape(-1, 2)]
    for row in range(rows):
        if row in (0, rows // 2):
            lines.append(f"usemtl part{int(row > 0)}")
        for column in range(columns):
            corner = row * (columns + 1) + column + 1
            quad = (corner, corner + columns + 1, corner + columns + 2, corner + 1)
            lines.append("f " + " ".join(f"{index}/{index}" for index in quad))
    path.write_text("\n".join(lines) + "\n")
    path.with_name("bowl.mtl").write_text("newmtl part0\nmap_Kd 0.png\nnewmtl part1\nmap_Kd 1.png\n")
    for index, color in enumerate(((200, 60, 40), (40, 90, 200))):
        image = np.full((64, 64, 3), color, np.uint8)
        image[16:48] = 255 - image[16:48]
        Image.fromarray(image).save(path.with_name(f"{index}.png"))
    return path


@pytest.fixture(scope="module")
def bowl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkered_bowl(tmp_path_factory.mktemp("bowl") / "red bowl.obj")


@pytest.fixture(scope="module")
def unity(bowl: Path) -> Path:
    folder = bowl.parent / "unity"
    finish(bowl, ENGINES["unity"], folder, SMALL)
    return folder


def test_the_package_of_an_engine(unity: Path) -> None:
    report = json.loads((unity / "finish.json").read_text())
    assert {path.name for path in unity.iterdir()} == {*report["files"], "finish.json"}
    assert report["files"] == [
        "SM_RedBowl.glb", "SM_RedBowl_Collider.glb", "T_RedBowl_BC.png", "T_RedBowl_MaskMap.png", "T_RedBowl_N.png",
    ]  # fmt: skip
    tree = glb_tree(unity / "SM_RedBowl.glb")
    assert [node["name"] for node in tree["nodes"]] == ["SM_RedBowl_LOD0", "SM_RedBowl_LOD1"]
    assert tree["scenes"][0]["nodes"] == [0]
    assert tree["nodes"][0]["extensions"]["MSFT_lod"]["ids"] == [1]
    assert tree["materials"][0]["name"] == "M_RedBowl"
    with Image.open(unity / "T_RedBowl_MaskMap.png") as mask:
        assert mask.mode == "RGBA"


def test_the_result_is_near_its_source(unity: Path) -> None:
    report = json.loads((unity / "finish.json").read_text())
    first, second = report["levels"]
    assert first["color_difference"] < 3 and first["silhouette_iou"] > 0.98
    assert second["triangles"] <= 0.45 * first["triangles"] and first["triangles"] <= 400
    assert first["silhouette_iou"] >= second["silhouette_iou"] > 0.9
    assert 0 == first["switch_distance"] < second["switch_distance"]
    assert report["lightmap_overlap"] == 0
    mesh = trimesh.load_mesh(unity / "SM_RedBowl.glb")
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    low, high = mesh.bounds
    assert mesh.is_watertight and low[1] == pytest.approx(0, abs=1e-6)
    assert high - low == pytest.approx([0.84, 0.24, 0.84], rel=0.02)


def test_the_collider_is_convex_and_covers_the_mesh(unity: Path) -> None:
    report = json.loads((unity / "finish.json").read_text())["collider"]
    scene = trimesh.load_scene(unity / "SM_RedBowl_Collider.glb")
    hulls = list(scene.geometry.values())
    assert 1 < len(hulls) <= 4 and report["hulls"] == len(hulls)
    assert all(hull.is_convex and len(hull.vertices) <= 32 for hull in hulls)
    assert -0.1 < report["volume_error"] < 1 and report["hausdorff"] < 0.2


def test_a_folder_with_files_is_not_overwritten(bowl: Path, unity: Path) -> None:
    with pytest.raises(UserError, match="is not empty"):
        finish(bowl, ENGINES["unity"], unity, SMALL)


def test_what_is_read_back_has_the_colors_of_both_materials(unity: Path) -> None:
    mesh = read_mesh(unity / "SM_RedBowl.glb")
    assert mesh.colors is not None
    colors = np.unique(np.round(mesh.colors.numpy() * 255 / 16), axis=0)
    for color in ((200, 60, 40), (40, 90, 200), (55, 195, 215), (215, 165, 55)):
        assert np.abs(colors * 16 - color).max(1).min() <= 16


def test_a_coarse_level_gets_an_atlas_of_its_own_if_that_improves_it(bowl: Path, unity: Path) -> None:
    folder = bowl.parent / "web"
    report = finish(bowl, ENGINES["web"], folder, replace(SMALL, lod_atlas="auto"))
    shared = json.loads((unity / "finish.json").read_text())["levels"][1]
    level = report.levels[1]
    assert level.own_atlas and not report.levels[0].own_atlas and not shared["own_atlas"]
    assert level.triangles <= 160 and level.silhouette_iou > shared["silhouette_iou"] + 0.01
    assert level.color_difference is not None and level.color_difference < shared["color_difference"]
    tree = glb_tree(folder / "SM_RedBowl.glb")
    assert [material["name"] for material in tree["materials"]] == ["M_RedBowl", "M_RedBowl_LOD1"]
    assert [mesh["primitives"][0]["material"] for mesh in tree["meshes"]] == [0, 1]
    assert "T_RedBowl_LOD1_BC.png" in report.files


def test_levels_are_baked_anew_without_meshoptimizer(bowl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "can_collapse", lambda: False)
    report = finish(bowl, ENGINES["web"], bowl.parent / "without", replace(SMALL, lod_atlas="auto", texture_size=64))
    assert [level.own_atlas for level in report.levels] == [False, True]
    assert report.levels[1].triangles <= 160 and report.levels[1].silhouette_iou > 0.95


def test_keep_changes_no_triangle(bowl: Path) -> None:
    folder = bowl.parent / "kept"
    report = finish(bowl, ENGINES["godot"], folder, replace(SMALL, keep=True, hulls=1))
    assert report.files == ["SM_RedBowl.glb", "SM_RedBowl_LOD1.glb"]
    before, after = read_mesh(bowl), read_mesh(folder / "SM_RedBowl.glb")
    tree = glb_tree(folder / "SM_RedBowl.glb")
    assert [node["name"] for node in tree["nodes"]] == ["red bowl", "red bowl_00-convcolonly"]
    hull = trimesh.load_scene(folder / "SM_RedBowl.glb").geometry["red bowl_00-convcolonly"]
    kept = after.vertices[after.faces][: len(before.faces)]
    assert len(after.faces) == len(before.faces) + len(hull.faces)
    assert np.allclose(np.sort(kept.reshape(-1, 9), 0), np.sort(before.vertices[before.faces].reshape(-1, 9), 0))
    assert [image["name"] for image in tree["images"]] == ["texture_0", "texture_1"]
    levels = report.levels
    assert levels[0].color_difference == pytest.approx(0, abs=1e-3) and levels[0].silhouette_iou == 1
    assert levels[1].triangles <= 0.45 * levels[0].triangles and levels[1].silhouette_iou > 0.9
    # The level has the same materials, and corners of the original only.
    coarse = read_mesh(folder / "SM_RedBowl_LOD1.glb")
    known = {tuple(place) for place in np.round(before.vertices.numpy(), 5).tolist()}
    assert {tuple(place) for place in np.round(coarse.vertices.numpy(), 5).tolist()} <= known


def test_a_print_is_a_closed_file_in_millimeters(tmp_path: Path) -> None:
    """An open box with a large hole is wrapped; +Z is up in the file."""
    box = trimesh.creation.box((0.2, 0.1, 0.3))
    box.update_faces(box.face_normals[:, 1] < 0.5)
    box.export(tmp_path / "box.ply")
    report = finish(tmp_path / "box.ply", ENGINES["print"], tmp_path / "out", replace(SMALL, wrap_resolution=40))
    assert report.files == ["Box.stl"] and report.repair["method"] == "wrapped"
    mesh = trimesh.load_mesh(tmp_path / "out" / "Box.stl")
    assert isinstance(mesh, trimesh.Trimesh)
    assert mesh.is_watertight and mesh.volume > 0
    assert np.ptp(mesh.bounds, axis=0) == pytest.approx([200, 300, 100], rel=0.05)
    assert mesh.bounds[0, 2] == pytest.approx(0, abs=1e-3)
    # The inside of the box stays reachable through its open side.
    assert mesh.volume < 0.5 * 200 * 300 * 100


def test_maps_without_content_are_left_out_and_another_unit_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trimesh.creation.box((300, 200, 200)).export(tmp_path / "box.stl")
    config = replace(SMALL, hulls=0, lods=[1.0])
    caplog.set_level("INFO")
    finish(tmp_path / "box.stl", ENGINES["web"], tmp_path / "web", config)
    (material,) = glb_tree(tmp_path / "web" / "SM_Box.glb")["materials"]
    assert material["pbrMetallicRoughness"] == {
        "baseColorFactor": pytest.approx([0.2140, 0.2140, 0.2140, 1], abs=4e-3),  # sRGB 0.5
        "roughnessFactor": pytest.approx(0.8, abs=2e-3),
        "metallicFactor": 0,
    }
    assert material.keys() == {"name", "pbrMetallicRoughness"}
    assert {path.name for path in (tmp_path / "web").iterdir()} == {"SM_Box.glb", "finish.json"}
    assert "its longest side is 300 m, as if the file is not in meters; set height_meters" in caplog.text
    trimesh.creation.icosphere(1, 0.5).export(tmp_path / "round.stl")
    finish(tmp_path / "round.stl", ENGINES["web"], tmp_path / "round", replace(config, crease_angle=60.0))
    assert caplog.text.count("longest side") == 1
