"""Compression, WebP images and physics shapes of the glTF files of a finished asset, decoded again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from finished_asset import write_asset
from PIL import Image
from scipy.spatial import KDTree

from steindreamer.pipelines.engines import FileFormat
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.keep import KeptDocument
from steindreamer.pipelines.finishing.package import write_kept
from steindreamer.pipelines.finishing.source import read_source
from steindreamer.representations.mesh.file import read_mesh
from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument


@pytest.mark.parametrize("compression", ["quantize", "meshopt", "draco"])
@pytest.mark.parametrize("suffix", ["glb", "gltf"])
def test_compressed_files_differ_by_the_quantization_only(tmp_path: Path, compression: str, suffix: FileFormat) -> None:
    asset, _ = write_asset(tmp_path, "unreal", suffix, compression=compression)
    path = tmp_path / f"SM_Egg.{suffix}"
    text = path.read_bytes()
    tree = json.loads(text if suffix == "gltf" else text[20 : 20 + int.from_bytes(text[12:16], "little")])
    needed = {
        "quantize": ["KHR_mesh_quantization"],
        "meshopt": ["KHR_mesh_quantization", "EXT_meshopt_compression"],
        "draco": ["KHR_draco_mesh_compression"],
    }[compression]
    assert tree["extensionsRequired"] == tree["extensionsUsed"] == needed
    read = GltfAccessors(GltfDocument(text, tmp_path))
    (node,) = (node for node in tree["nodes"] if node["name"] == "SM_Egg")
    (primitive,) = tree["meshes"][node["mesh"]]["primitives"]
    attributes, indices = read.attributes(primitive)
    widths = {"POSITION": 3, "TEXCOORD_0": 2, "NORMAL": 3, "TANGENT": 4, "TEXCOORD_1": 2}
    found = {}
    for name, width in widths.items():
        values = read.attribute(attributes, primitive, name, width)
        assert values is not None
        found[name] = values
    assert indices is not None and len(indices) == 3 * len(asset.looks[0].mesh.faces)
    found["POSITION"] = found["POSITION"] * np.array(node.get("scale", (1, 1, 1)))
    look = asset.looks[0]
    used = np.unique(look.mesh.faces)
    assert look.mesh.normals is not None and look.mesh.uvs is not None and look.lightmap is not None
    points = asset.frame.points(look.mesh.vertices)
    given = {
        "POSITION": points, "TEXCOORD_0": look.mesh.uvs.numpy(), "NORMAL": look.mesh.normals.numpy(),
        "TANGENT": look.material.tangents, "TEXCOORD_1": look.lightmap,
    }  # fmt: skip
    extent = float(np.abs(points).max())
    # Half a step in each of up to three directions; Draco stores normals as points of an octahedron, others exactly.
    tolerance = (
        {"POSITION": np.ptp(points, axis=0).max() / 2**14, "TEXCOORD_0": 0.9 / 2**14, "NORMAL": 0.005}
        if compression == "draco"
        else {"POSITION": extent / 2**15, "TEXCOORD_0": 0.5 / 65535, "NORMAL": 0.5 / 127, "TANGENT": 0.5 / 127}
        | {"TEXCOORD_1": 0.5 / 65535}
    )
    place = [np.concatenate([each["POSITION"], each["TEXCOORD_0"]], 1) for each in (found, given)]
    distance, row = KDTree(place[0]).query(place[1][used])
    assert len(np.unique(row)) == len(used) == len(place[0])
    for name, values in found.items():
        error = np.abs(values[row] - given[name][used]).max()
        assert error <= tolerance.get(name, 0) * 1.01 + 1e-7, name
    assert distance.max() > 0  # it is lossy
    collided = [node for node in tree["nodes"] if node["name"].startswith("UCX_")]
    assert asset.collider is not None
    hulls = np.concatenate([asset.frame.points(hull.vertices) for hull in asset.collider.hulls])
    everything = np.ptp(np.concatenate([hulls, points]), axis=0)
    assert len(collided) == 2
    assert np.ptp(read_mesh(path).vertices.numpy(), axis=0) == pytest.approx(everything, abs=2e-4)


@pytest.mark.parametrize("compression", ["none", "meshopt"])
def test_omi_collider_is_a_static_body_with_one_shape_per_hull(tmp_path: Path, compression: str) -> None:
    asset, names = write_asset(tmp_path, "godot", "gltf", collider_format="omi", compression=compression)
    assert not any("ollider" in name for name in names)
    tree = json.loads((tmp_path / "SM_Egg.gltf").read_text())
    assert set(tree["extensionsUsed"]) >= {"OMI_physics_shape", "OMI_physics_body"}
    assert not {"OMI_physics_shape", "OMI_physics_body"} & set(tree.get("extensionsRequired", []))
    nodes = tree["nodes"]
    (root,) = tree["scenes"][0]["nodes"]
    assert nodes[root]["extensions"]["OMI_physics_body"] == {"motion": {"type": "static"}}
    children = [nodes[child] for child in nodes[root]["children"]]
    assert [child["name"] for child in children] == ["SM_Egg", "SM_Egg_Collider_00", "SM_Egg_Collider_01"]
    # Nothing from which Godot makes another collider: a suffix of a name, or a shown mesh of a hull.
    assert not any("colonly" in node["name"] for node in nodes)
    assert ["mesh" in child for child in children] == [True, False, False]
    read = GltfAccessors(GltfDocument((tmp_path / "SM_Egg.gltf").read_bytes(), tmp_path))
    shapes = tree["extensions"]["OMI_physics_shape"]["shapes"]
    assert asset.collider is not None
    for child, hull in zip(children[1:], asset.collider.hulls, strict=True):
        shape = shapes[child["extensions"]["OMI_physics_body"]["collider"]["shape"]]
        assert shape["type"] == "convex" and "scale" not in child
        (primitive,) = tree["meshes"][shape["convex"]["mesh"]]["primitives"]
        points = read.numbers(primitive["attributes"]["POSITION"], 3)
        assert np.allclose(points, asset.frame.points(hull.vertices), atol=1e-6)


@pytest.mark.parametrize("quality", [100, 60])
def test_webp_keeps_normals_exactly_and_colors_as_asked(tmp_path: Path, quality: int) -> None:
    asset, names = write_asset(
        tmp_path, "web", "glb", "gltf", images="webp", webp_quality=quality, compression="meshopt"
    )
    assert names[:3] == ["SM_Egg.glb", "SM_Egg.gltf", "SM_Egg.bin"] and "T_Egg_BC.webp" in names
    tree = json.loads((tmp_path / "SM_Egg.gltf").read_text())
    needed = ["EXT_texture_webp", "KHR_mesh_quantization", "EXT_meshopt_compression"]
    assert tree["extensionsRequired"] == needed and tree["extensionsUsed"] == ["MSFT_lod", *needed]
    assert all("source" not in texture for texture in tree["textures"])
    exact = {}
    for kind, image in asset.looks[0].material.images().items():
        name = {"base_color": "BC", "normal": "N", "emissive": "E"}.get(kind, "ORM")
        with Image.open(tmp_path / f"T_Egg_{name}.webp") as texels:
            exact[kind] = bool((np.asarray(texels) == image).all())
    lossless = quality == 100
    assert exact == {
        "base_color": lossless, "occlusion_roughness_metallic": True, "normal": True, "emissive": lossless,
    }  # fmt: skip
    # The product's own reader understands what was written.
    assert len(read_mesh(tmp_path / "SM_Egg.glb").faces) == len(asset.looks[0].mesh.faces)


def test_a_kept_file_is_written_as_gltf_with_its_own_arrays_and_images(tmp_path: Path) -> None:
    asset, _ = write_asset(tmp_path / "given", "web", "glb")
    config = FinishConfig(keep=True, formats=("gltf",), collider_format="omi")
    source = read_source(tmp_path / "given" / "SM_Egg.glb", config)
    document = KeptDocument(source, 40.0)
    faces = document.levels((1.0,))
    paths = write_kept(document, faces, [1.0], asset.collider, asset.names, asset.frame, tmp_path / "kept", config)
    assert sorted(paths) == sorted((tmp_path / "kept").iterdir())
    kept, given = (read_mesh(tmp_path / name) for name in ("kept/SM_Egg.gltf", "given/SM_Egg.glb"))
    assert np.array_equal(kept.vertices, given.vertices) and np.array_equal(kept.faces, given.faces)
    tree = json.loads((tmp_path / "kept" / "SM_Egg.gltf").read_text())
    with Image.open(tmp_path / "kept" / tree["images"][0]["uri"]) as color:
        assert np.array_equal(np.asarray(color), asset.looks[0].material.base_color)
    roots = [tree["nodes"][root]["name"] for root in tree["scenes"][0]["nodes"]]
    assert roots == ["SM_Egg_LOD0", "SM_Egg_Body"]
    assert len(tree["extensions"]["OMI_physics_shape"]["shapes"]) == 2
