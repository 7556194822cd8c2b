"""Random mesh files (by hypothesis, with fixed seeds) are read correctly or refused with a one-line error."""

from __future__ import annotations

import copy
import math
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from gltf_samples import Gltf, cube, light
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mesh_colors import color_at
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial

from steindreamer.representations import Placement
from steindreamer.representations.mesh.file import read_fitted_mesh, read_mesh
from steindreamer.representations.mesh.painted import PaintedMesh

FEW: dict[str, Any] = {"derandomize": True, "deadline": None, "database": None}
FEW |= {"suppress_health_check": list(HealthCheck), "phases": [Phase.explicit, Phase.generate]}
"""Phases without shrinking, so that a failure takes no longer than a success."""
SHARES = st.sampled_from([0.0, 0.2, 0.5, 1.0])
COLORS = st.tuples(SHARES, SHARES, SHARES)
SIZES = st.sampled_from([1e-4, 0.04, 1.0, 20.0, 3e4])
PLACES = st.tuples(*[st.sampled_from([-3.0, 0.0, 0.01, 50.0])] * 3)
"""Relative tolerance, in units of the size."""


@dataclass(frozen=True)
class Look:
    """Appearance of the cube in a random file."""

    factor: tuple[float, float, float] | None
    """Color factor of the material, linear; None: no material."""
    tint: tuple[float, float, float] | None
    """Vertex colors, linear."""
    kind: str
    """Data type of the vertex colors."""
    texels: tuple[tuple[int, int, int], ...] | None
    """Texels of a 2 x 2 image."""
    wrap: int
    shift: int
    """Offset of the texture coordinates, in whole images."""


LOOKS = st.builds(
    Look,
    factor=st.none() | COLORS,
    tint=st.none() | COLORS,
    kind=st.sampled_from(["<f4", "u1", "<u2"]),
    texels=st.none() | st.tuples(*[st.tuples(*[st.sampled_from([0, 90, 255])] * 3)] * 4),
    wrap=st.sampled_from([10497, 33648]),
    shift=st.integers(-2, 2),
)


def add_cube(sample: Gltf, look: Look, node: dict[str, Any], degenerate: bool) -> None:
    primitive: dict[str, Any] = {}
    if look.texels is not None:
        pixels = np.array(look.texels).reshape(2, 2, 3)
        moved = {"extensions": {"KHR_texture_transform": {"offset": [look.shift, 0]}}}
        primitive["material"] = sample.painted(pixels, moved, wrapS=look.wrap, magFilter=9728)
        surface = sample.tree["materials"][-1]["pbrMetallicRoughness"]
        surface |= {} if look.factor is None else {"baseColorFactor": [*look.factor, 1]}
    elif look.factor is not None:
        primitive["material"] = sample.add("materials", pbrMetallicRoughness={"baseColorFactor": [*look.factor, 1]})
    if look.tint is not None:
        most = {"<f4": 1, "u1": 255, "<u2": 65535}[look.kind]
        values = np.tile(np.array([*look.tint, 1.0]) * most, (24, 1)).astype(look.kind)
        primitive["attributes"] = {"COLOR_0": sample.accessor(values, normalized=look.kind != "<f4")}
    part = sample.cube(node, **primitive)
    if degenerate:
        faces = np.concatenate([cube()[2], [[0, 0, 1], [5, 5, 5]]]).astype("<u4")
        part["indices"] = sample.accessor(faces.reshape(-1))


def shown(look: Look) -> np.ndarray:
    """Expected linear colors at (u, v) = (0.25, 0.25), (0.75, 0.25), (0.25, 0.75) and (0.75, 0.75)."""
    color = np.ones(3) if look.factor is None else np.array(look.factor)
    if look.factor is None and look.tint is None and look.texels is None:
        color = np.full(3, light(0.5))
    color = color * (1 if look.tint is None else np.array(look.tint))
    if look.texels is None:
        return np.tile(color, (4, 1))
    texels = np.vectorize(light)(np.array(look.texels) / 255).reshape(2, 2, 3)
    if look.wrap == 33648 and look.shift % 2:
        texels = texels[:, ::-1]
    return texels.reshape(4, 3) * color


@given(
    looks=st.lists(LOOKS, min_size=1, max_size=3),
    size=SIZES,
    place=PLACES,
    turn=st.sampled_from([0, 1, 2, 3]),
    mirrored=st.booleans(),
    degenerate=st.booleans(),
    suffix=st.sampled_from([".glb", ".gltf"]),
    yaw=st.sampled_from([0.0, 90.0, 33.0]),
)
@settings(max_examples=30, **FEW)
def test_gltf(
    looks: list[Look],
    size: float,
    place: tuple[float, float, float],
    turn: int,
    mirrored: bool,
    degenerate: bool,
    suffix: str,
    yaw: float,
) -> None:
    sample = Gltf()
    angle = turn * math.pi / 4
    for number, look in enumerate(looks):
        node = {
            "translation": [size * (place[0] + 2 * number), size * place[1], size * place[2]],
            "rotation": [0, 0, math.sin(angle), math.cos(angle)],
            "scale": [size, size, -size if mirrored else size],
        }
        add_cube(sample, look, node, degenerate)
    with tempfile.TemporaryDirectory() as name:
        mesh, placement = read_fitted_mesh(sample.save(Path(name), f"mesh{suffix}"), yaw)
    assert len(mesh.faces) == 12 * len(looks), "those without area are gone"
    original = placement.undo(mesh.vertices.double())
    assert volume(original, mesh) == pytest.approx(len(looks) * size**3, rel=2e-3)
    low = torch.tensor([place[0] - 0.5, place[1] - 0.5, place[2] - 0.5])
    assert torch.allclose(original.amin(0).float() / size, low, atol=1e-4)
    cosine, sine = round(math.cos(2 * angle)), round(math.sin(2 * angle))
    for number, look in enumerate(looks):
        for (u, v), linear in zip(((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)), shown(look), strict=True):
            x, y = u - 0.5, v - 0.5
            turned = [cosine * x - sine * y, sine * x + cosine * y, -0.5 if mirrored else 0.5]
            point = [size * (turned[axis] + place[axis] + (2 * number if axis == 0 else 0)) for axis in range(3)]
            inside = placement.apply(torch.tensor(point, dtype=torch.float64)).tolist()
            color = color_at(mesh, (inside[0], inside[1], inside[2]))
            assert [light(value) for value in color] == pytest.approx(linear.tolist(), abs=4e-3)


SHAPES = {
    "box": lambda: trimesh.creation.box(),
    "ball": lambda: trimesh.creation.icosphere(1, 0.5),
    "tube": lambda: trimesh.creation.annulus(0.2, 0.5, 1.0, sections=8),
}


@given(
    shape=st.sampled_from(sorted(SHAPES)),
    suffix=st.sampled_from([".glb", ".gltf", ".obj", ".ply", ".stl", ".off"]),
    colored=st.sampled_from(["", "vertex", "face", "material"]),
    color=st.tuples(*[st.sampled_from([0, 60, 188, 255])] * 3),
    size=SIZES,
    place=PLACES,
)
@settings(max_examples=60, **FEW)
def test_files_that_trimesh_writes(
    shape: str,
    suffix: str,
    colored: str,
    color: tuple[int, int, int],
    size: float,
    place: tuple[float, float, float],
) -> None:
    mesh = SHAPES[shape]()
    mesh.apply_transform(trimesh.transformations.scale_and_translate(size, np.array(place) * size))
    if colored == "vertex":
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.tile([*color, 255], (len(mesh.vertices), 1)))
    elif colored == "face":
        mesh.visual = ColorVisuals(mesh, face_colors=np.tile([*color, 255], (len(mesh.faces), 1)))
    elif colored == "material":
        mesh.visual = TextureVisuals(material=PBRMaterial(baseColorFactor=[*color, 255]))
    options: dict[str, Any] = {"digits": 12} if suffix in (".obj", ".off") else {}
    exported = mesh.export(file_type=suffix[1:], **options)
    files = exported if isinstance(exported, dict) else {f"mesh{suffix}": exported}
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"mesh{suffix}"
        for file, content in files.items():
            place_of = path.with_name("mesh.gltf" if file.endswith(".gltf") else file)
            place_of.write_bytes(content if isinstance(content, bytes) else content.encode())
        read, placement = read_fitted_mesh(path)
    assert volume(placement.undo(read.vertices.double()), read) == pytest.approx(mesh.volume, rel=0.02)
    expected = Placement.fit(torch.from_numpy(np.array(mesh.vertices)))
    assert placement.center == pytest.approx(expected.center, abs=1e-4 * size)
    assert placement.scale == pytest.approx(expected.scale, rel=1e-4)
    assert read.colors is not None and len(read.colors.unique(dim=0)) == 1
    # The colors that each format stores when trimesh writes it; trimesh does not convert them to linear in glTF.
    if (suffix in (".ply", ".obj") and colored in ("vertex", "face")) and not (suffix == ".obj" and colored == "face"):
        assert (read.colors[0] * 255).tolist() == pytest.approx(color, abs=1)
    elif suffix in (".glb", ".gltf") and colored:
        assert [light(value) * 255 for value in read.colors[0].tolist()] == pytest.approx(color, abs=1)
    elif suffix in (".stl", ".off") or not colored:
        assert read.colors[0].tolist() == [0.5] * 3


def volume(vertices: torch.Tensor, mesh: PaintedMesh) -> float:
    a, b, c = (vertices - vertices.mean(0))[mesh.faces].unbind(1)
    return float((a * b.cross(c, dim=1)).sum() / 6)


def valid(suffix: str) -> bytes:
    """A valid file."""
    if suffix in (".glb", ".gltf"):
        sample = rich()
        return sample.glb() if suffix == ".glb" else sample.gltf()
    mesh = SHAPES["box"]()
    mesh.visual = ColorVisuals(mesh, vertex_colors=[200, 100, 50, 255])
    exported = mesh.export(file_type=suffix[1:])
    return exported if isinstance(exported, bytes) else str(exported).encode()


def rich() -> Gltf:
    """A file with many features of glTF."""
    sample = Gltf()
    look = Look((0.5, 0.2, 1.0), (1.0, 0.5, 0.5), "u1", ((255, 0, 0),) * 4, 33648, 1)
    add_cube(sample, look, {"rotation": [0, 0, 0, 1], "scale": [1, 2, 1]}, True)
    add_cube(sample, look, {"matrix": np.eye(4).reshape(-1).tolist()}, False)
    sample.tree["meshes"][0]["primitives"][0]["targets"] = [{"POSITION": 0}]
    sample.tree["meshes"][0]["weights"] = [0.5]
    change = {
        "count": 1,
        "indices": {"bufferView": sample.view(np.array([4], "<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": sample.view(np.ones(3, "<f4").tobytes())},
    }
    sample.tree["accessors"][0]["sparse"] = change
    joints, weights = np.zeros((24, 4), "u1"), np.tile([1.0, 0, 0, 0], (24, 1)).astype("<f4")
    attributes = {"JOINTS_0": sample.accessor(joints), "WEIGHTS_0": sample.accessor(weights)}
    sample.cube({"skin": 0}, attributes=attributes)
    sample.add("skins", joints=[0], inverseBindMatrices=sample.accessor(np.eye(4, dtype="<f4").reshape(1, 16)))
    places = sample.accessor(np.array([[0, 0, 0], [5, 0, 0]], "<f4"))
    sample.cube({"extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": places}}}}, mode=5)
    return sample


def check_outcome(path: Path) -> None:
    """Check that the file is read to a valid mesh, or refused with a one-line error that names the file."""
    try:
        mesh, placement = read_fitted_mesh(path)
    except (ValueError, FileNotFoundError) as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        return
    assert len(mesh.faces) > 0 and bool(mesh.vertices.isfinite().all())
    assert 0 <= int(mesh.faces.min()) <= int(mesh.faces.max()) < len(mesh.vertices)
    assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.9, rel=1e-4)
    assert mesh.colors is not None and 0 <= float(mesh.colors.min()) <= float(mesh.colors.max()) <= 1
    assert math.isfinite(placement.scale)


@given(
    suffix=st.sampled_from([".glb", ".gltf", ".obj", ".ply", ".stl", ".off"]),
    cut=st.none() | st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=4)), max_size=3),
)
@settings(max_examples=100, **FEW)
def test_corrupted_bytes(suffix: str, cut: float | None, changes: list[tuple[float, bytes]]) -> None:
    data = bytearray(valid(suffix))
    for where, what in changes:
        at = int(where * len(data))
        data[at : at + len(what)] = what
    if cut is not None:
        del data[int(cut * len(data)) :]
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"mesh{suffix}"
        path.write_bytes(data)
        check_outcome(path)


WRONG = [None, True, -1, 0, 3, 10**9, 10**30, -0.5, 1e300, math.nan, "", "x", "https://a.com/a", [], [0], {}, {"a": 1}]


@given(st.data())
@settings(max_examples=150, **FEW)
def test_corrupted_json_values(data: st.DataObject) -> None:
    sample = rich()
    for _ in range(data.draw(st.integers(1, 2))):
        item: Any = sample.tree
        while True:
            keys = sorted(item) if isinstance(item, dict) else list(range(len(item)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(item[key], dict | list) or data.draw(st.integers(0, 4)) == 0:
                item[key] = copy.deepcopy(data.draw(st.sampled_from(WRONG)))
                break
            item = item[key]
    with tempfile.TemporaryDirectory() as name:
        check_outcome(sample.save(Path(name)))


def test_the_unchanged_file_is_read(tmp_path: Path) -> None:
    """Without this, the tests above could pass by refusing every file."""
    for suffix in (".glb", ".gltf", ".obj", ".ply", ".stl", ".off"):
        path = tmp_path / f"mesh{suffix}"
        path.write_bytes(valid(suffix))
        assert len(read_mesh(path).faces) >= 12
        os.unlink(path)
