"""FBX files of a finished asset, read again; skipped where Blender is missing (`BLENDER` names a program)."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from fbx_tree import FbxNode, read_fbx
from finished_asset import finished_asset, write_asset
from scipy.spatial import KDTree

from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.package import write_package
from steindreamer.pipelines.finishing.writing.fbx import blender_command
from steindreamer.pipelines.finishing.writing.requirements import check_files

PROGRAM = os.environ.get("BLENDER", "")


@pytest.fixture(scope="module")
def blender() -> str:
    try:
        blender_command(PROGRAM)
    except ValueError as error:
        pytest.skip(f"needs Blender or bpy: {error}")
    return PROGRAM


def models(tree: FbxNode) -> dict[str, FbxNode]:
    (objects,) = (child for child in tree.children if child.name == "Objects")
    return {each.properties[1]: each for each in objects.children if each.name == "Model"}


def meshes(tree: FbxNode) -> dict[str, Any]:
    return {each.properties[1]: each for each in tree.all("Geometry")}


def triangles(geometry: FbxNode) -> np.ndarray:
    points = geometry.all("Vertices")[0].properties[0].reshape(-1, 3)
    ends = geometry.all("PolygonVertexIndex")[0].properties[0]
    return points[np.where(ends < 0, ~ends, ends).reshape(-1, 3)]


def test_levels_and_hulls_are_in_the_units_and_axes_of_fbx(tmp_path: Path, blender: str) -> None:
    asset, names = write_asset(tmp_path, "unreal", "fbx", blender=blender)
    assert names[:2] == ["SM_Egg.fbx", "SM_Egg_LOD1.fbx"]
    tree = read_fbx(tmp_path / "SM_Egg.fbx")
    assert set(models(tree)) == set(meshes(tree)) == {"SM_Egg", "UCX_SM_Egg_00", "UCX_SM_Egg_01"}
    (settings,) = (child for child in tree.children if child.name == "GlobalSettings")
    assert settings.setting("UnitScaleFactor") == [1]  # centimeters
    assert [settings.setting(key) for key in ("UpAxis", "UpAxisSign", "FrontAxis", "FrontAxisSign")] == [
        [1], [1], [2], [1],
    ]  # fmt: skip
    for model in models(tree).values():
        assert model.setting("Lcl Scaling", [1, 1, 1]) == pytest.approx([1, 1, 1])
        assert model.setting("Lcl Rotation", [0, 0, 0]) == pytest.approx([0, 0, 0], abs=1e-4)
        assert model.setting("Lcl Translation", [0, 0, 0]) == pytest.approx([0, 0, 0], abs=1e-4)
    mesh = asset.looks[0].mesh
    expected = 100 * asset.frame.points(mesh.vertices)[mesh.faces.numpy()]
    found = triangles(meshes(tree)["SM_Egg"])
    centers = [each.mean(1) for each in (found, expected)]
    assert len(found) == len(expected)
    assert KDTree(centers[0]).query(centers[1])[0].max() < 1e-3
    corners = found.reshape(-1, 3)
    assert trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3)).volume > 0  # winding
    # Two sets of texture coordinates, the second for lightmaps.
    assert len(meshes(tree)["SM_Egg"].all("LayerElementUV")) == 2
    assert {name for name in models(read_fbx(tmp_path / "SM_Egg_LOD1.fbx"))} == {"SM_Egg_LOD1"}


def test_materials_refer_to_the_textures_beside_the_file(tmp_path: Path, blender: str) -> None:
    _, names = write_asset(tmp_path, "unity", "fbx", blender=blender)
    assert names[:2] == ["SM_Egg.fbx", "SM_Egg_Collider.fbx"]
    tree = read_fbx(tmp_path / "SM_Egg.fbx")
    assert set(models(tree)) == {"SM_Egg_LOD0", "SM_Egg_LOD1"}
    assert {each.properties[1] for each in tree.all("Material")} == {"M_Egg", "M_Egg_LOD1"}
    files = {node.properties[0] for node in tree.all("RelativeFilename")}
    assert files == {f"T_Egg{level}_{kind}.png" for level in ("", "_LOD1") for kind in ("BC", "N", "E")}
    assert files < set(names)
    assert set(models(read_fbx(tmp_path / "SM_Egg_Collider.fbx"))) == {"SM_Egg_Collider_00", "SM_Egg_Collider_01"}


def test_a_missing_program_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="blender is 'no-such', and there is no such program"):
        check_files(FinishConfig(formats=("fbx",), blender="no-such"), ENGINES["unity"])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "bpy", None)
    with pytest.raises(UserError, match="install Blender, or its package bpy"):
        check_files(FinishConfig(formats=("fbx",)), ENGINES["unity"])


def test_a_python_without_bpy_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(UserError, match="neither Blender nor a Python with bpy"):
        check_files(FinishConfig(formats=("fbx",), blender=str(program)), ENGINES["unity"])


def test_a_failure_of_blender_is_one_line_and_leaves_no_file(tmp_path: Path) -> None:
    program = tmp_path / "blender"
    program.write_text("#!/bin/sh\necho first >&2\necho out of memory >&2\nexit 3\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"^Blender cannot write SM_Egg\.fbx: out of memory$"):
        write_package(finished_asset(ENGINES["web"]), out, FinishConfig(formats=("fbx",), blender=str(program)))
    assert not [path for path in out.iterdir() if path.suffix == ".fbx"]
