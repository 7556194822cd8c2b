"""The file formats of a finished asset, each read again by another library."""

from __future__ import annotations

import importlib
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from finished_asset import OFFSET, SCALE, finished_asset, write_asset
from PIL import Image
from scipy.spatial import KDTree

from steindreamer.pipelines.engines import ENGINES, FileFormat
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.finishing.bake import ORM, constant_values
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.finished import Finished
from steindreamer.pipelines.finishing.package import write_package
from steindreamer.pipelines.finishing.writing.requirements import check_files


def corners(mesh: trimesh.Trimesh) -> np.ndarray:
    """Positions and texture coordinates of the corners of all triangles, v pointing up."""
    visual: Any = mesh.visual
    uv = visual.uv
    return np.concatenate([np.asarray(mesh.vertices)[mesh.faces], np.asarray(uv)[mesh.faces]], 2).reshape(-1, 5)


def expected_corners(asset: Finished, level: int = 0) -> np.ndarray:
    mesh = asset.looks[level].mesh
    assert mesh.uvs is not None
    points = mesh.vertices.numpy() * SCALE + np.array(OFFSET)
    uvs = mesh.uvs.numpy() * [1, -1] + [0, 1]
    return np.concatenate([points, uvs], 1)[mesh.faces.numpy()].reshape(-1, 5)


def same(rows: np.ndarray, expected: np.ndarray, tolerance: float) -> bool:
    """Whether two sets of corners are the same, in any order."""
    return len(rows) == len(expected) and all(
        KDTree(one).query(other)[0].max() < tolerance for one, other in ((rows, expected), (expected, rows))
    )


def test_gltf_has_its_arrays_and_images_in_files(tmp_path: Path) -> None:
    asset, names = write_asset(tmp_path, "unreal", "gltf", "glb")
    assert names == [
        "SM_Egg.gltf", "SM_Egg.bin", "SM_Egg_LOD1.gltf", "SM_Egg_LOD1.bin", "SM_Egg.glb", "SM_Egg_LOD1.glb",
        "T_Egg_BC.png", "T_Egg_ORM.png", "T_Egg_N.png", "T_Egg_E.png",
        "T_Egg_LOD1_BC.png", "T_Egg_LOD1_ORM.png", "T_Egg_LOD1_N.png", "T_Egg_LOD1_E.png",
        "T_Egg_N_GL.png", "T_Egg_LOD1_N_GL.png",
    ]  # fmt: skip
    tree = json.loads((tmp_path / "SM_Egg.gltf").read_text())
    assert tree["buffers"] == [{"byteLength": (tmp_path / "SM_Egg.bin").stat().st_size, "uri": "SM_Egg.bin"}]
    assert [image["uri"] for image in tree["images"]] == [
        "T_Egg_BC.png", "T_Egg_ORM.png", "T_Egg_N_GL.png", "T_Egg_E.png",
    ]  # fmt: skip
    with Image.open(tmp_path / "T_Egg_N.png") as down, Image.open(tmp_path / "T_Egg_N_GL.png") as up:
        assert (np.asarray(down)[..., 1] == 255 - np.asarray(up)[..., 1]).all()
    scenes = [trimesh.load_scene(tmp_path / f"SM_Egg.{suffix}") for suffix in ("gltf", "glb")]
    assert all(set(scene.geometry) == {"SM_Egg", "UCX_SM_Egg_00", "UCX_SM_Egg_01"} for scene in scenes)
    for scene in scenes:
        mesh = scene.geometry["SM_Egg"]
        assert isinstance(mesh, trimesh.Trimesh)
        assert same(corners(mesh), expected_corners(asset), 1e-6)
        visual: Any = mesh.visual
        assert np.array(visual.material.baseColorTexture).tolist() == asset.looks[0].material.base_color.tolist()


def test_obj_is_closed_and_has_every_texture(tmp_path: Path) -> None:
    asset, names = write_asset(tmp_path, "unity", "obj")
    assert names[:4] == ["SM_Egg.obj", "SM_Egg.mtl", "SM_Egg_LOD1.obj", "SM_Egg_Collider.obj"]
    for level, name in enumerate(("SM_Egg", "SM_Egg_LOD1")):
        mesh = trimesh.load_mesh(tmp_path / f"{name}.obj", process=False)
        assert isinstance(mesh, trimesh.Trimesh)
        assert same(corners(mesh), expected_corners(asset, level), 1e-6)
    bare = trimesh.load_mesh(tmp_path / "SM_Egg.obj", process=False, maintain_order=True, skip_materials=True)
    assert isinstance(bare, trimesh.Trimesh)
    bare.merge_vertices(merge_tex=True, merge_norm=True)
    assert bare.is_watertight
    assert (tmp_path / "SM_Egg.obj").read_text().count("\nv ") == len(bare.vertices)
    library = (tmp_path / "SM_Egg.mtl").read_text()
    found = dict(re.findall(r"^(\w+) (\w+\.png)$", library, re.M))
    packed = asset.looks[0].material.occlusion_roughness_metallic
    for key, image in (
        ("map_Kd", asset.looks[0].material.base_color),
        ("map_Pr", packed[..., 1]),
        ("map_Pm", packed[..., 2]),
        ("norm", asset.looks[0].material.normal),
        ("map_Ke", asset.looks[0].material.emissive),
    ):
        with Image.open(tmp_path / found[key]) as texels:
            assert (np.asarray(texels) == image).all()
    collider = trimesh.load_mesh(tmp_path / "SM_Egg_Collider.obj")
    assert isinstance(collider, trimesh.Trimesh)
    assert [hull.is_convex for hull in collider.split()] == [True, True]
    assert re.findall("^o (.*)", (tmp_path / "SM_Egg_Collider.obj").read_text(), re.M) == [
        "SM_Egg_Collider_00", "SM_Egg_Collider_01",
    ]  # fmt: skip


@pytest.mark.parametrize("file_format", ["gltf", "obj", "usdz"])
def test_a_texture_of_one_value_is_a_number_of_the_material(tmp_path: Path, file_format: FileFormat) -> None:
    """Colors are in display sRGB in MTL, and linear elsewhere."""
    if file_format == "usdz":
        pytest.importorskip("pxr", reason="needs usd-core")
    asset = finished_asset(ENGINES["ar"])
    plain = {"base_color": (128, 64, 0), ORM: (255, 51, 102), "emissive": (0, 128, 255)}
    material = asset.looks[0].material
    images = {kind: np.full_like(material.base_color, color) for kind, color in plain.items()}
    images["base_color"][0, 0] += 1  # still one value
    material = replace(
        material, base_color=images["base_color"], occlusion_roughness_metallic=images[ORM], emissive=images["emissive"]
    )
    material = replace(material, factors=constant_values(material))
    asset = replace(asset, looks=[replace(asset.looks[0], material=material)], levels=asset.levels[:1], collider=None)
    paths = write_package(asset, tmp_path, FinishConfig(formats=(file_format,)))
    assert [path.name for path in paths if path.suffix == ".png"] == ["T_Egg_N.png"]
    linear = [0.2159, 0.0513, 0], [0, 0.2159, 1]
    if file_format == "gltf":
        (written,) = json.loads(paths[0].read_text())["materials"]
        surface = written["pbrMetallicRoughness"]
        assert surface["baseColorFactor"] == pytest.approx([*linear[0], 1], abs=5e-3)
        assert written["emissiveFactor"] == pytest.approx(linear[1], abs=5e-3)
        assert (surface["roughnessFactor"], surface["metallicFactor"]) == pytest.approx((0.2, 0.4))
        assert not [key for key in (*surface, *written) if "Texture" in key and key != "normalTexture"]
    elif file_format == "obj":
        text = (tmp_path / "SM_Egg.mtl").read_text()
        found = {
            key: [float(value) for value in values.split()]
            for key, values in re.findall(r"^(K[de]|P[rm]) (.*)", text, re.M)
        }
        assert found["Kd"] == pytest.approx([0.502, 0.251, 0], abs=3e-3) and found["Pr"] + found["Pm"] == [0.2, 0.4]
        assert found["Ke"] == pytest.approx([0, 0.502, 1], abs=3e-3) and "map_" not in text
    else:
        Usd, UsdShade = (importlib.import_module(f"pxr.{name}") for name in ("Usd", "UsdShade"))
        stage = Usd.Stage.Open(str(paths[0]))
        shader = UsdShade.Shader(stage.GetPrimAtPath("/SM_Egg/M_Egg/Surface"))
        values = {
            name: shader.GetInput(name).Get() for name in ("diffuseColor", "emissiveColor", "roughness", "metallic")
        }
        assert list(values["diffuseColor"]) == pytest.approx(linear[0], abs=5e-3)
        assert list(values["emissiveColor"]) == pytest.approx(linear[1], abs=5e-3)
        assert (values["roughness"], values["metallic"]) == pytest.approx((0.2, 0.4))


def test_occlusion_or_a_varying_color_stays_a_texture() -> None:
    material = finished_asset(ENGINES["ar"]).looks[0].material
    flat = replace(material, occlusion_roughness_metallic=np.full_like(material.base_color, 200))
    assert constant_values(flat) == {} and set(flat.images()) == {"base_color", ORM, "normal", "emissive"}


def test_obj_and_stl_for_a_printer_are_millimeters_with_z_up(tmp_path: Path) -> None:
    asset, names = write_asset(tmp_path, "print", "stl", "obj")
    assert names[:3] == ["Egg.stl", "Egg.obj", "Egg.mtl"]
    expected = asset.frame.points(asset.looks[0].mesh.vertices)[:, [0, 2, 1]] * [1000, -1000, 1000]
    for name in ("Egg.stl", "Egg.obj"):
        mesh = trimesh.load_mesh(tmp_path / name)
        assert isinstance(mesh, trimesh.Trimesh)
        assert mesh.bounds == pytest.approx(np.stack([expected.min(0), expected.max(0)]), abs=1e-3)
        assert mesh.volume > 0


def test_usdz_is_what_quick_look_accepts(tmp_path: Path) -> None:
    pytest.importorskip("pxr", reason="needs usd-core")
    Usd, UsdGeom, UsdShade, UsdValidation = (
        importlib.import_module(f"pxr.{name}") for name in ("Usd", "UsdGeom", "UsdShade", "UsdValidation")
    )
    asset, names = write_asset(tmp_path, "ar", "glb", "usdz")
    assert names[:2] == ["SM_Egg.glb", "SM_Egg.usdz"]
    path = tmp_path / "SM_Egg.usdz"
    every = UsdValidation.ValidationRegistry().GetOrLoadAllValidators()
    stage = Usd.Stage.Open(str(path))
    assert len(every) > 20
    assert [str(error.GetMessage()) for error in UsdValidation.ValidationContext(every).Validate(stage)] == []
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        files = [Path(entry.filename).name for entry in entries]
    assert files[0] == "SM_Egg.usdc" and sorted(files[1:]) == ["BC.png", "E.png", "N.png", "ORM.png"]
    data = path.read_bytes()
    for entry in entries:
        at = entry.header_offset
        names_and_extra = int.from_bytes(data[at + 26 : at + 28], "little") + int.from_bytes(
            data[at + 28 : at + 30], "little"
        )
        assert (at + 30 + names_and_extra) % 64 == 0
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdGeom.GetStageUpAxis(stage) == "Y"
    assert stage.GetDefaultPrim().GetPath() == "/SM_Egg"
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/SM_Egg/Geometry"))
    faces = np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    points = np.array(mesh.GetPointsAttr().Get())
    assert trimesh.Trimesh(points, faces, process=False).is_watertight
    flat = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").ComputeFlattened())
    assert same(np.concatenate([points[faces.reshape(-1)], flat], 1), expected_corners(asset), 1e-6)
    normals = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("normals").ComputeFlattened()).reshape(-1, 3, 3)
    flat_normals = trimesh.Trimesh(points, faces, process=False).face_normals
    assert np.einsum("fci,fi->fc", normals, flat_normals).min() > 0.8
    surface = UsdShade.Shader(stage.GetPrimAtPath("/SM_Egg/M_Egg/Surface"))
    connected = {}
    for entry in surface.GetInputs():
        source = entry.GetConnectedSources()[0][0]
        texture = UsdShade.Shader(source.source.GetPrim())
        connected[entry.GetBaseName()] = (texture.GetPrim().GetName(), str(source.sourceName), texture)
    assert {name: value[:2] for name, value in connected.items()} == {
        "diffuseColor": ("BC", "rgb"), "emissiveColor": ("E", "rgb"), "normal": ("N", "rgb"),
        "occlusion": ("ORM", "r"), "roughness": ("ORM", "g"), "metallic": ("ORM", "b"),
    }  # fmt: skip
    assert {name: value[2].GetInput("sourceColorSpace").Get() for name, value in connected.items()} == {
        "diffuseColor": "sRGB", "emissiveColor": "sRGB", "normal": "raw", "occlusion": "raw", "roughness": "raw",
        "metallic": "raw",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "settings", "message"),
    [
        ("unity", {"formats": ("obj",), "compression": "draco"}, "compression=draco is for glTF files"),
        ("print", {"images": "webp"}, "images=webp is for glTF files, and formats is .stl.; add glb"),
        ("unity", {"keep": True, "formats": ("glb", "obj")}, "--keep writes glTF files"),
        ("unity", {"keep": True, "images": "webp"}, "--keep leaves the arrays and images"),
        ("print", {"keep": True}, "3D printing takes none"),
        ("godot", {"compression": "meshopt"}, "Godot does not read EXT_meshopt_compression; leave it out"),
        ("ar", {"images": "webp"}, r"images=webp: AR .* does not read EXT_texture_webp"),
        ("print", {"collider_format": "omi"}, "collider_format=omi is for glTF files"),
    ],
)
def test_settings_that_do_not_fit_are_refused(engine: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_files(FinishConfig(**settings), ENGINES[engine])


def test_a_missing_package_is_named_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pxr", "DracoPy"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(UserError, match=r"pip install 'steindreamer\[usd\]'; or leave out USDZ"):
        check_files(FinishConfig(), ENGINES["ar"])
    with pytest.raises(UserError, match=r"pip install 'steindreamer\[meshes\]'"):
        check_files(FinishConfig(compression="draco"), ENGINES["web"])
    # A kept file is a glTF file, also for an engine that takes others too.
    check_files(FinishConfig(keep=True), ENGINES["ar"])
