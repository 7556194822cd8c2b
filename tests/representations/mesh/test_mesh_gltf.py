"""glTF files of other programs: correct colors on the surface, and one-line errors for broken files."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gltf_samples import Gltf, cube, image, light
from mesh_colors import color_at
from PIL import Image

from steindreamer.representations.mesh.file import read_mesh
from steindreamer.representations.mesh.formats.neighbors import ImageReader
from steindreamer.representations.mesh.painted import PaintedMesh

ORANGE = [0.8, 0.5, 0.2]
LIGHT = [*map(light, ORANGE), 1.0]
FRONT = (0.0, 0.0, 0.5)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]])
"""Texels of a 2 x 2 image."""


def read(sample: Gltf, folder: Path, name: str = "mesh.glb") -> PaintedMesh:
    return read_mesh(sample.save(folder, name))


def front(u: float, v: float) -> tuple[float, float, float]:
    """The point of the cube's front side with these texture coordinates."""
    return (u - 0.5, v - 0.5, 0.5)


def test_a_material_without_an_image_has_its_factor_as_color(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube(material=sample.add("materials", pbrMetallicRoughness={"baseColorFactor": LIGHT}))
    mesh = read(sample, tmp_path)
    assert mesh.colors is not None and mesh.colors.unique(dim=0).shape == (1, 3)
    assert color_at(mesh, FRONT) == ORANGE


def test_each_primitive_has_its_own_material(tmp_path: Path) -> None:
    sample = Gltf()
    for color, side in (([1, 0, 0, 1], 0.0), ([0, 0, 1, 1], 3.0)):
        material = sample.add("materials", pbrMetallicRoughness={"baseColorFactor": color})
        sample.cube({"translation": [side, 0, 0]}, material=material)
    sample.cube({"translation": [6, 0, 0]})
    sample.cube({"translation": [9, 0, 0]}, material=sample.add("materials"))
    mesh = read(sample, tmp_path)
    colors = [color_at(mesh, (x, 0.0, 0.5)) for x in (0.0, 3.0, 6.0, 9.0)]
    # Without a material: gray; with an empty material: the default of glTF.
    assert colors == [[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0.5], [1, 1, 1]]


def test_vertex_colors_are_linear_and_multiplied(tmp_path: Path) -> None:
    for kind, most in (("<f4", 1), ("u1", 255), ("<u2", 65535)):
        sample = Gltf()
        colors = np.tile(np.array([0.25, 1.0, 0.0, 1.0]) * most, (24, 1)).astype(kind)
        normalized = {} if kind == "<f4" else {"normalized": True}
        material = sample.add("materials", pbrMetallicRoughness={"baseColorFactor": [0.5, 0.5, 1, 1]})
        sample.cube(attributes={"COLOR_0": sample.accessor(colors, **normalized)}, material=material)
        red, green, blue = color_at(read(sample, tmp_path), FRONT)
        assert light(red) == pytest.approx(0.125, abs=3e-3)
        assert light(green) == pytest.approx(0.5, abs=2e-3)
        assert blue == 0


def test_textures_are_sampled_between_vertices(tmp_path: Path) -> None:
    """All corners of the cube are white; the texture inside the sides must also be sampled."""
    pixels = np.full((16, 16, 3), 255)
    pixels[4:12, 4:12] = (200, 30, 60)
    sample = Gltf()
    sample.cube(material=sample.painted(pixels))
    mesh = read(sample, tmp_path)
    assert mesh.colors is not None and bool((mesh.colors == 1).all())
    assert color_at(mesh, FRONT) == [0.784, 0.118, 0.235]
    assert color_at(mesh, front(0.1, 0.1)) == [1, 1, 1]


def test_factor_and_texture_are_multiplied_in_linear_light(tmp_path: Path) -> None:
    sample = Gltf()
    material = sample.painted(np.full((2, 2, 3), 188))
    sample.tree["materials"][material]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 1, 0, 1]
    sample.cube(material=material)
    red, green, blue = color_at(read(sample, tmp_path), FRONT)
    assert light(red) == pytest.approx(light(188 / 255) / 2, abs=1e-3)
    assert (green, blue) == (pytest.approx(188 / 255, abs=1e-3), 0)


def test_rows_of_the_image_go_downward_with_v(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube(material=sample.painted(QUARTERS))
    mesh = read(sample, tmp_path)
    places = [front(u, v) for v in (0.25, 0.75) for u in (0.25, 0.75)]
    assert [color_at(mesh, place) for place in places] == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("wrap", "texel"), [(10497, [1, 0, 0]), (33071, [0, 1, 0]), (33648, [0, 1, 0])], ids=["repeat", "clamp", "mirror"]
)
def test_wrap_modes(wrap: int, texel: list[float], tmp_path: Path) -> None:
    """At u = 1.25: the first column again, the border, or the second column."""
    sample = Gltf()
    moved = {"extensions": {"KHR_texture_transform": {"offset": [1.0, 0.0]}}}
    sample.cube(material=sample.painted(QUARTERS, moved, wrapS=wrap, wrapT=33071))
    assert color_at(read(sample, tmp_path), front(0.25, 0.25)) == texel


def test_mirrored_textures_come_back(tmp_path: Path) -> None:
    sample = Gltf()
    moved = {"extensions": {"KHR_texture_transform": {"offset": [2.0, -2.0]}}}
    sample.cube(material=sample.painted(QUARTERS, moved, wrapS=33648, wrapT=33648))
    mesh = read(sample, tmp_path)
    assert [color_at(mesh, front(u, 0.25)) for u in (0.25, 0.75)] == [[1, 0, 0], [0, 1, 0]]


def test_nearest_texels_if_the_sampler_says_so(tmp_path: Path) -> None:
    for filter, red in ((9728, 1.0), (9729, 0.6)):
        sample = Gltf()
        sample.cube(material=sample.painted(QUARTERS, wrapS=33071, wrapT=33071, magFilter=filter))
        assert light(color_at(read(sample, tmp_path), front(0.45, 0.25))[0]) == pytest.approx(red, abs=3e-3)


def test_texture_transforms_scale_then_rotate_then_translate(tmp_path: Path) -> None:
    """A rotation by 90 degrees (about the corner, counter-clockwise in the image) maps (u, v) to (v, -u)."""
    sample = Gltf()
    moved = {"extensions": {"KHR_texture_transform": {"rotation": math.pi / 2, "offset": [0.0, 1.0]}}}
    sample.cube(material=sample.painted(QUARTERS, moved))
    mesh = read(sample, tmp_path)
    assert color_at(mesh, front(0.75, 0.25)) == [1, 0, 0]  # at (0.25, 0.25)
    assert color_at(mesh, front(0.25, 0.25)) == [0, 0, 1]  # at (0.25, 0.75)
    sample = Gltf()
    moved = {"extensions": {"KHR_texture_transform": {"scale": [0.5, 0.5], "offset": [0.5, 0.0]}}}
    sample.cube(material=sample.painted(QUARTERS, moved, magFilter=9728))
    assert color_at(read(sample, tmp_path), front(0.5, 0.5)) == [0, 1, 0]


def test_the_set_of_coordinates_that_the_texture_names(tmp_path: Path) -> None:
    for info in ({"texCoord": 1}, {"texCoord": 0, "extensions": {"KHR_texture_transform": {"texCoord": 1}}}):
        sample = Gltf()
        corner = np.full((24, 2), 0.75, "<f4")
        sample.cube(attributes={"TEXCOORD_1": sample.accessor(corner)}, material=sample.painted(QUARTERS, info))
        assert color_at(read(sample, tmp_path), front(0.25, 0.25)) == [1, 1, 1]


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_coordinates_and_positions_may_be_integers(kind: str, tmp_path: Path) -> None:
    """KHR_mesh_quantization: normalized texture coordinates, and positions scaled by the node."""
    positions, coordinates, faces = cube()
    top = np.iinfo(kind).max
    sample = Gltf()
    attributes = {
        "POSITION": sample.accessor(((positions + 0.5) * 200).astype(kind)),
        "TEXCOORD_0": sample.accessor((coordinates * top).astype(kind), normalized=True),
    }
    part = {
        "attributes": attributes,
        "indices": sample.accessor(faces.reshape(-1)),
        "material": sample.painted(QUARTERS),
    }
    scale = 1 / 200
    sample.node(mesh=sample.add("meshes", primitives=[part]), scale=[scale] * 3, translation=[-0.5] * 3)
    sample.tree["extensionsRequired"] = ["KHR_mesh_quantization"]
    assert color_at(read(sample, tmp_path), front(0.25, 0.75)) == [0, 0, 1]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_images_of_all_kinds(form: str, tmp_path: Path) -> None:
    sample = Gltf()
    image = sample.image(np.full((8, 8, 3), (200, 100, 50)), form)
    given = {"extensions": {"EXT_texture_webp": {"source": image}}} if form == "WEBP" else {"source": image}
    texture = sample.add("textures", **given)
    sample.tree["extensionsRequired"] = ["EXT_texture_webp"] if form == "WEBP" else []
    sample.cube(material=sample.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
    assert color_at(read(sample, tmp_path), FRONT) == pytest.approx([200 / 255, 100 / 255, 50 / 255], abs=0.02)


def test_specular_glossiness_materials(tmp_path: Path) -> None:
    sample = Gltf()
    glossy = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": LIGHT}}
    sample.cube(material=sample.add("materials", extensions=glossy))
    sample.tree["extensionsRequired"] = ["KHR_materials_pbrSpecularGlossiness"]
    assert color_at(read(sample, tmp_path), FRONT) == ORANGE


def test_nodes_place_their_meshes(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube()
    mesh, quarter = sample.tree["nodes"][0]["mesh"], [0, math.sin(math.pi / 4), 0, math.cos(math.pi / 4)]
    child = sample.add("nodes", mesh=mesh, translation=[0, 0, 2])
    sample.tree["nodes"][0] |= {"children": [child], "rotation": quarter, "scale": [2, 1, 1]}
    vertices = read(sample, tmp_path).vertices
    # The parent is scaled by two along its x axis, which is -z of the scene; its child is at +x.
    assert vertices[:24].amax(0).tolist() == pytest.approx([0.5, 0.5, 1.0], abs=1e-6)
    assert vertices[24:].amax(0).tolist() == pytest.approx([2.5, 0.5, 1.0], abs=1e-6)


def test_a_node_may_be_placed_by_a_matrix(tmp_path: Path) -> None:
    sample = Gltf()
    columns = [[0, 2, 0, 0], [-3, 0, 0, 0], [0, 0, 1, 0], [5, 6, 7, 1]]
    sample.cube({"matrix": np.array(columns, float).reshape(-1).tolist()})
    mesh = read(sample, tmp_path)
    assert (mesh.vertices.amin(0).tolist(), mesh.vertices.amax(0).tolist()) == ([3.5, 5, 6.5], [6.5, 7, 7.5])


def test_a_mirrored_node_turns_its_faces(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube({"scale": [-1, 1, 1]})
    mesh = read(sample, tmp_path)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert float((a * b.cross(c, dim=1)).sum() / 6) == pytest.approx(1.0)


def test_only_the_default_scene_is_read(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube()
    sample.cube({"translation": [9, 0, 0]})
    sample.tree["scenes"] = [{"nodes": [1]}, {"nodes": [0]}]
    sample.tree["scene"] = 1
    assert float(read(sample, tmp_path).vertices.max()) == 0.5
    del sample.tree["scenes"], sample.tree["scene"]
    assert float(read(sample, tmp_path).vertices.max()) == 9.5


def test_instances_and_hidden_nodes(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube()
    places = sample.accessor(np.array([[0, 0, 0], [5, 0, 0]], "<f4"))
    sample.tree["nodes"][0]["extensions"] = {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": places}}}
    sample.cube({"translation": [0, 99, 0], "extensions": {"KHR_node_visibility": {"visible": False}}})
    assert read(sample, tmp_path).vertices.amax(0).tolist() == [5.5, 0.5, 0.5]


def test_skins_follow_their_joints(tmp_path: Path) -> None:
    """A skinned mesh is transformed by its joints, not by its own node."""
    sample = Gltf()
    joints, weights = np.zeros((24, 4), "u1"), np.tile([1.0, 0, 0, 0], (24, 1)).astype("<f4")
    attributes = {"JOINTS_0": sample.accessor(joints), "WEIGHTS_0": sample.accessor(weights)}
    sample.cube({"translation": [0, 50, 0], "skin": 0}, attributes=attributes)
    joint = sample.node(translation=[0, 0, 3], scale=[2, 2, 2])
    bind = np.eye(4, dtype="<f4")
    bind[3, 0] = 1  # column-major
    sample.add("skins", joints=[joint], inverseBindMatrices=sample.accessor(bind.reshape(1, 16)))
    assert read(sample, tmp_path).vertices.amax(0).tolist() == [3, 1, 4]


def test_a_skin_may_come_without_matrices_and_a_mesh_without_joints(tmp_path: Path) -> None:
    """Then joints count from the origin, and what names no joint stands where its node does."""
    sample = Gltf()
    joints, weights = np.zeros((24, 4), "u1"), np.tile([1.0, 0, 0, 0], (24, 1)).astype("<f4")
    sample.cube({"skin": 0}, attributes={"JOINTS_0": sample.accessor(joints), "WEIGHTS_0": sample.accessor(weights)})
    sample.cube({"skin": 0, "translation": [0, 9, 0]})
    sample.add("skins", joints=[sample.node(translation=[0, 0, 3])])
    mesh = read(sample, tmp_path)
    assert (mesh.vertices.amin(0).tolist(), mesh.vertices.amax(0).tolist()) == ([-0.5, -0.5, -0.5], [0.5, 9.5, 3.5])


def test_default_morphs_are_applied(tmp_path: Path) -> None:
    sample = Gltf()
    part = sample.cube()
    part["targets"] = [{"POSITION": sample.accessor(np.tile([4.0, 0, 0], (24, 1)).astype("<f4"))}]
    sample.tree["meshes"][0]["weights"] = [0.5]
    assert read(sample, tmp_path).vertices.amax(0).tolist() == [2.5, 0.5, 0.5]


@pytest.mark.parametrize("mode", [4, 5, 6])
def test_lists_strips_and_fans_with_and_without_indices(mode: int, tmp_path: Path) -> None:
    """A square of two triangles, all facing +z."""
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
    order = {4: [0, 1, 2, 2, 1, 3], 5: [0, 1, 2, 3], 6: [0, 1, 3, 2]}[mode]
    for indexed in (True, False):
        sample = Gltf()
        points = square if indexed else square[order]
        part = {"attributes": {"POSITION": sample.accessor(points)}, "mode": mode}
        if indexed:
            part["indices"] = sample.accessor(np.array(order, "<u2"))
        sample.node(mesh=sample.add("meshes", primitives=[part]))
        mesh = read(sample, tmp_path)
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        normals = (b - a).cross(c - a, dim=1)
        assert len(normals) == 2 and bool((normals[:, 2] == 1).all())


def test_points_and_lines_are_ignored_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = Gltf()
    sample.cube()
    sample.cube(mode=1)
    assert len(read(sample, tmp_path).faces) == 12
    assert "points, lines" in caplog.text


def test_sparse_and_interleaved_accessors(tmp_path: Path) -> None:
    positions, coordinates, faces = cube()
    sample = Gltf()
    both = np.concatenate([positions, coordinates], 1)
    view = sample.view(both.tobytes(), byteStride=20)
    kinds = {"bufferView": view, "componentType": 5126, "count": 24}
    attributes = {
        "POSITION": sample.add("accessors", **kinds, type="VEC3"),
        "TEXCOORD_0": sample.add("accessors", **kinds, type="VEC2", byteOffset=12),
    }
    # White except at two vertices, without stored base data.
    change = {
        "count": 2,
        "indices": {"bufferView": sample.view(np.array([4, 5], "<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": sample.view(np.ones((2, 3), "<f4").tobytes())},
    }
    attributes["COLOR_0"] = sample.add("accessors", componentType=5126, count=24, type="VEC3", sparse=change)
    material = sample.painted(np.full((2, 2, 3), 255))
    part = {"attributes": attributes, "indices": sample.accessor(faces.reshape(-1)), "material": material}
    sample.node(mesh=sample.add("meshes", primitives=[part]))
    mesh = read(sample, tmp_path)
    assert mesh.vertices.tolist() == positions.tolist() and mesh.coordinates.tolist() == coordinates.tolist()
    assert mesh.colors is not None and mesh.colors.amax(1).nonzero()[:, 0].tolist() == [4, 5]


def test_text_files_with_their_neighbors(tmp_path: Path) -> None:
    sample = Gltf()
    material = sample.painted(np.full((2, 2, 3), 188))
    sample.cube(material=material)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "a mesh.bin").write_bytes(bytes(sample.binary))
    (tmp_path / "paint.png").write_bytes(image(np.full((2, 2, 3), 100)))
    sample.tree["images"] = [{"uri": "paint.png"}]
    (tmp_path / "mesh.gltf").write_bytes(b"\xef\xbb\xbf" + sample.gltf("parts/a%20mesh.bin"))
    assert color_at(read_mesh(tmp_path / "mesh.gltf"), FRONT) == [0.392] * 3
    # The same with embedded data.
    assert color_at(read_mesh(sample.save(tmp_path, "inside.gltf")), FRONT) == [0.392] * 3


def _lost(folder: Path) -> str:
    return "lost.png"


def _text(folder: Path) -> str:
    (folder / "text.png").write_text("no image")
    return "text.png"


def _cut(folder: Path) -> str:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    (folder / "cut.png").write_bytes(image(noise)[:2000])
    return "cut.png"


def _pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.png")
    return "pipe.png"


def _outside(folder: Path) -> str:
    (folder.parent / "outside.png").write_bytes(image(QUARTERS))
    return "../outside.png"


def _link(folder: Path) -> str:
    (folder.parent / "target.png").write_bytes(image(QUARTERS))
    (folder / "link.png").symlink_to(folder.parent / "target.png")
    return "link.png"


def _bomb(folder: Path) -> str:
    """A PNG file with a header of 60000 x 60000 pixels and two rows of data."""
    data = bytearray(image(np.zeros((1, 1, 3))))
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(data)
    return "bomb.png"


@pytest.mark.parametrize(
    "name",
    [
        _lost,
        _text,
        _cut,
        _pipe,
        _outside,
        _link,
        _bomb,
        lambda _: "https://example.com/a.png",
        lambda _: "data:,",
    ],
    ids=["lost", "text", "cut", "pipe", "outside", "link", "bomb", "http", "empty data"],
)
def test_a_material_with_an_unreadable_image_has_its_plain_color(
    name: Callable[[Path], str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample = Gltf()
    material = sample.painted(QUARTERS)
    sample.tree["materials"][material]["pbrMetallicRoughness"]["baseColorFactor"] = LIGHT
    sample.cube(material=material)
    (tmp_path / "inner").mkdir()
    sample.tree["images"] = [{"uri": name(tmp_path / "inner")}]
    with caplog.at_level(logging.WARNING):
        mesh = read(sample, tmp_path / "inner")
    assert color_at(mesh, FRONT) == ORANGE
    assert [record.getMessage().count("images[0] cannot be read") for record in caplog.records] == [1]


def test_a_texture_without_coordinates_or_source_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = Gltf()
    part = sample.cube(material=sample.painted(QUARTERS))
    del part["attributes"]["TEXCOORD_0"]
    corner = 0.735  # where all four texels meet: half of each channel, in linear light
    assert color_at(read(sample, tmp_path), FRONT) == [corner] * 3
    assert "a textured mesh has no TEXCOORD_0; it shows one texel" in caplog.text
    sample.tree["textures"][0] = {}
    assert color_at(read(sample, tmp_path), FRONT) == [1, 1, 1]
    assert "textures[0] has no image of a supported format" in caplog.text


def test_images_of_fractions_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((2, 2), np.float32)).save(buffer, "TIFF")
    with pytest.raises(ValueError, match="floating-point"):
        ImageReader().decode(buffer.getvalue())


def test_images_share_one_limit() -> None:
    reader = ImageReader()
    reader._left = 100
    reader.decode(image(np.zeros((8, 8, 3))))
    with pytest.raises(ValueError, match="8 x 8 pixels are too many"):
        reader.decode(image(np.zeros((8, 8, 3))))


def test_images_of_16_bits_keep_their_values() -> None:
    data = image(np.full((2, 2), 257 * 100, np.uint16))
    assert ImageReader().decode(data).unique().tolist() == [100]


def _extension(name: str) -> Callable[[Gltf], None]:
    def require(sample: Gltf) -> None:
        sample.tree["extensionsRequired"] = [name]

    return require


def _set(path: str, value: object) -> Callable[[Gltf], None]:
    """Replace the value at a path such as `a.0.b` in the tree."""

    def change(sample: Gltf) -> None:
        *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
        item = sample.tree
        for key in way:
            item = item[key]  # type: ignore[index]
        item[last] = value  # type: ignore[index]

    return change


def _indices(values: list[int]) -> Callable[[Gltf], None]:
    def change(sample: Gltf) -> None:
        sample.tree["meshes"][0]["primitives"][0]["indices"] = sample.accessor(np.array(values, "<u4"))

    return change


def _positions(value: float) -> Callable[[Gltf], None]:
    def change(sample: Gltf) -> None:
        positions = cube()[0]
        positions[3, 1] = value
        sample.tree["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = sample.accessor(positions)

    return change


def _sparse(where: int) -> Callable[[Gltf], None]:
    def change(sample: Gltf) -> None:
        sample.tree["accessors"][0]["sparse"] = {
            "count": 1,
            "indices": {"bufferView": sample.view(np.array([where], "<u2").tobytes()), "componentType": 5123},
            "values": {"bufferView": sample.view(np.ones(3, "<f4").tobytes())},
        }

    return change


def _skinned(joint: int, *names: str) -> Callable[[Gltf], None]:
    """By one joint, which stands in the scene as nodes[1]; `names` of the attributes that are there."""

    def change(sample: Gltf) -> None:
        attributes = sample.tree["meshes"][0]["primitives"][0]["attributes"]
        values = {"JOINTS_0": np.full((24, 4), joint, "u1"), "WEIGHTS_0": np.ones((24, 4), "<f4")}
        attributes |= {name: sample.accessor(values[name]) for name in names}
        sample.add("skins", joints=[sample.node()])
        sample.tree["nodes"][0]["skin"] = 0

    return change


def _lost_joint(sample: Gltf) -> None:
    _skinned(0, "JOINTS_0", "WEIGHTS_0")(sample)
    sample.tree["scenes"][0]["nodes"] = [0]


def _short_strip(sample: Gltf) -> None:
    _indices([0, 1])(sample)
    sample.tree["meshes"][0]["primitives"][0]["mode"] = 5


BROKEN: dict[str, tuple[Callable[[Gltf], None], str]] = {
    "sparse element that is not there": (_sparse(24), "replaces elements that do not exist"),
    "indices that are fractions": (
        _set("meshes.0.primitives.0.indices", 0),
        r"accessors\[0\] does not have 1 integer components",
    ),
    "joint that is not in the scene": (_lost_joint, r"skins\[0\] has joints that are not in the scene: nodes \[1\]"),
    "joint that is not in the skin": (_skinned(1, "JOINTS_0", "WEIGHTS_0"), "refers to joints that do not exist"),
    "joints without weights": (_skinned(0, "JOINTS_0"), "or has no weights"),
    "strip of two": (_short_strip, "no triangles"),
    "array of nothing": (_set("accessors.2.count", 0), "no triangles"),
    "buffer that is not there": (_set("bufferViews.1.buffer", 1), r"buffers\[1\], which does not exist"),
    "basis textures": (_extension("KHR_texture_basisu"), "KHR_texture_basisu.*PNG or JPEG"),
    "unknown extension": (_extension("ACME_secret"), "requires the glTF extension ACME_secret"),
    "splats": (_extension("KHR_gaussian_splatting"), "initial_ply"),
    "index out of range": (_indices([0, 1, 24]), "refers to vertex 24; there are 24"),
    "huge index": (_indices([0, 1, 2**32 - 1]), "refers to vertex"),
    "no triangle": (_indices([0, 1]), "no triangles"),
    "no area": (_indices([0, 0, 1]), "none of its triangles has an area"),
    "nan": (_positions(math.nan), "not finite"),
    "infinite": (_positions(math.inf), "not finite"),
    "wrong count": (_set("accessors.0.count", 10**12), "at most"),
    "count beyond its view": (_set("accessors.0.count", 10**6), "needs"),
    "negative count": (_set("accessors.0.count", -1), "at most"),
    "view beyond its buffer": (_set("bufferViews.1.byteLength", 10**9), "ends at byte"),
    "negative offset": (_set("bufferViews.1.byteOffset", -8), "ends at byte"),
    "stride of nothing": (_set("bufferViews.1.byteStride", 1), "needs"),
    "unknown type": (_set("accessors.0.componentType", 5124), "component type 5124"),
    "too few components": (_set("accessors.0.type", "VEC2"), "components"),
    "coordinates for fewer vertices": (_set("accessors.1.count", 3), "TEXCOORD_0 for 24 vertices"),
    "accessor that is not there": (_set("meshes.0.primitives.0.indices", 77), r"accessors\[77\]"),
    "index that is a text": (_set("meshes.0.primitives.0.indices", "one"), "accessors"),
    "mesh that is not there": (_set("nodes.0.mesh", 9), r"meshes\[9\]"),
    "nodes in a circle": (_set("nodes.0.children", [0]), "has two parents"),
    "nodes that are no list": (_set("nodes", {"a": 1}), "broken"),
    "old version": (_set("asset.version", "1.0"), "version is '1.0'"),
    "bad factor": (_set("materials.0.pbrMetallicRoughness.baseColorFactor", [1e999, 0, 0, 1]), "baseColorFactor"),
    "nothing in the scene": (_set("scenes.0.nodes", []), "no triangles"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_raise_a_one_line_error(name: str, tmp_path: Path) -> None:
    change, message = BROKEN[name]
    sample = Gltf()
    sample.cube(material=sample.painted(QUARTERS))
    change(sample)
    with pytest.raises(ValueError, match=message) as caught:
        read(sample, tmp_path)
    assert "mesh.glb" in str(caught.value) and "\n" not in str(caught.value)


GLB = b"glTF" + (2).to_bytes(4, "little")
CONTAINERS = {
    "only its name": (b"glTF", "truncated: a GLB header has 12 bytes"),
    "the version before": (b"glTF" + (1).to_bytes(4, "little") + (12).to_bytes(4, "little"), "its GLB version is 1"),
    "longer than it is": (GLB + (99).to_bytes(4, "little"), "truncated: 12 of 99 bytes"),
    "without JSON": (GLB + (12).to_bytes(4, "little"), "the GLB has no JSON chunk"),
    "without a binary": (b'{"buffers": [{"byteLength": 4}]}', r"buffers\[0\] has no data"),
    "a short buffer": (b'{"buffers": [{"byteLength": 4, "uri": "data:,abc"}]}', r"buffers\[0\] has 3 of 4 bytes"),
    "a URI without data": (b'{"buffers": [{"byteLength": 4, "uri": "data:abc"}]}', "data URI without data"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_that_lack_a_part(name: str, tmp_path: Path) -> None:
    content, message = CONTAINERS[name]
    if content.startswith(b"{"):
        sample = Gltf()
        sample.cube()
        content = json.dumps(sample.tree | json.loads(content)).encode()
    (tmp_path / "mesh.gltf").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_mesh(tmp_path / "mesh.gltf")


def test_files_of_too_many_triangles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = Gltf()
    sample.cube()
    monkeypatch.setattr("steindreamer.representations.mesh.formats.gltf.MAX_FACES", 12)
    assert len(read(sample, tmp_path).faces) == 12
    sample.cube()
    with pytest.raises(ValueError, match="more than 12 triangles"):
        read(sample, tmp_path)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("https://example.com/a.bin", "refers to 'https://example.com/a.bin', a URL"),
        ("../a.bin", r"refers to '\.\./a\.bin', which is outside its folder"),
        ("/etc/passwd", "refers to '/etc/passwd', which is outside its folder"),
        ("lost.bin", r"it needs \S+lost\.bin: No such file"),
        ("pipe.bin", r"pipe\.bin is a \w+, not a file"),
        ("\0", "which is not a file"),
    ],
    ids=["address", "above", "absolute", "lost", "pipe", "no path"],
)
def test_buffers_come_from_the_files_folder_only(uri: str, message: str, tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube()
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(sample.binary))
    os.mkfifo(folder / "pipe.bin")
    (folder / "mesh.gltf").write_bytes(sample.gltf(uri))
    with pytest.raises(ValueError, match=rf"mesh\.gltf: .*{message}"):
        read_mesh(folder / "mesh.gltf")


def test_truncated_files_are_refused_at_any_length(tmp_path: Path) -> None:
    sample = Gltf()
    sample.cube(material=sample.painted(QUARTERS))
    data, path = sample.glb(), tmp_path / "cut.glb"
    for length in range(0, len(data), len(data) // 24):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cannot read .*cut\.glb"):
            read_mesh(path)


def test_a_document_of_brackets_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.gltf"
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="cannot read"):
        read_mesh(path)
    path.write_text(json.dumps([]))
    with pytest.raises(ValueError, match="not a glTF file"):
        read_mesh(path)


def test_draco(tmp_path: Path) -> None:
    library = pytest.importorskip("DracoPy")
    positions, _, faces = cube()
    colors = np.tile(np.array([255, 0, 0, 255], np.uint8), (24, 1))
    packed = library.encode(positions, faces.astype(np.uint32), colors=colors, quantization_bits=14)
    ids = {attribute["attribute_type"]: attribute["unique_id"] for attribute in library.decode(packed).attributes}
    sample = Gltf()
    attributes = {
        "POSITION": sample.add("accessors", componentType=5126, count=24, type="VEC3"),
        "COLOR_0": sample.add("accessors", componentType=5121, count=24, type="VEC4", normalized=True),
    }
    draco = {"bufferView": sample.view(packed), "attributes": {"POSITION": ids[0], "COLOR_0": ids[2]}}
    part = {
        "attributes": attributes,
        "indices": sample.add("accessors", componentType=5123, count=36, type="SCALAR"),
        "extensions": {"KHR_draco_mesh_compression": draco},
    }
    sample.node(mesh=sample.add("meshes", primitives=[part]))
    sample.tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    mesh = read(sample, tmp_path)
    assert len(mesh.faces) == 12
    assert mesh.vertices.abs().amax(0).tolist() == pytest.approx([0.5] * 3, abs=1e-3)
    assert color_at(mesh, (0.0, 0.0, float(mesh.vertices[:, 2].max()))) == [1, 0, 0]
    draco["attributes"]["COLOR_0"] = 77
    with pytest.raises(ValueError, match="its Draco data has no COLOR_0"):
        read(sample, tmp_path)
    draco["attributes"]["COLOR_0"] = ids[2]
    sample.binary[:] = bytes(len(sample.binary))
    with pytest.raises(ValueError, match="KHR_draco_mesh_compression"):
        read(sample, tmp_path)


def test_meshopt(tmp_path: Path) -> None:
    library = pytest.importorskip("meshoptimizer")
    positions, _, faces = cube()
    sample = Gltf()

    def packed(raw: bytes, count: int, stride: int, mode: str) -> int:
        view: dict[str, object] = {"buffer": 0, "byteLength": len(raw), "byteStride": stride}
        view |= {"count": count, "mode": mode}
        inner = sample.view(raw)
        view["byteOffset"] = sample.tree["bufferViews"][inner]["byteOffset"]
        extensions = {"EXT_meshopt_compression": view}
        return sample.add("bufferViews", buffer=1, byteLength=count * stride, extensions=extensions)

    vertices = packed(library.encode_vertex_buffer(positions, 24, 12), 24, 12, "ATTRIBUTES")
    triangles = packed(library.encode_index_buffer(faces.reshape(-1).astype(np.uint32), 36, 24), 36, 2, "TRIANGLES")
    attributes = {"POSITION": sample.add("accessors", bufferView=vertices, componentType=5126, count=24, type="VEC3")}
    indices = sample.add("accessors", bufferView=triangles, componentType=5123, count=36, type="SCALAR")
    sample.node(mesh=sample.add("meshes", primitives=[{"attributes": attributes, "indices": indices}]))
    sample.tree["extensionsRequired"] = ["EXT_meshopt_compression"]
    mesh = read(sample, tmp_path)
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert len(mesh.faces) == 12 and float((a * b.cross(c, dim=1)).sum() / 6) == pytest.approx(1.0)
    view = sample.tree["bufferViews"][triangles]["extensions"]["EXT_meshopt_compression"]
    view["count"] = 10**12
    with pytest.raises(ValueError, match="compressed buffer view has 1000000000000 elements"):
        read(sample, tmp_path)
    view["count"] = 36
    sample.binary[:] = bytes(len(sample.binary))
    with pytest.raises(ValueError, match="EXT_meshopt_compression"):
        read(sample, tmp_path)


@pytest.mark.parametrize("package", ["DracoPy", "meshoptimizer"])
def test_a_missing_decoder_is_named_with_its_command(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    sample = Gltf()
    part = sample.cube()
    if package == "DracoPy":
        part["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
        sample.tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    else:
        view = {"buffer": 0, "byteLength": 4, "byteStride": 12, "count": 24, "mode": "ATTRIBUTES"}
        sample.tree["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": view}
    with pytest.raises(ValueError, match=rf"{package}.*pip install 'steindreamer\[meshes\]'"):
        read(sample, tmp_path)
