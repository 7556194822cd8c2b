"""glTF files with an atlas that several nodes share, and a reader for them that is independent of the product."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from gltf_samples import Gltf, cube
from PIL import Image

from steindreamer.representations import RetextureConfig

NAMES = ("Body", "The Lid")


def noise(size: int = 32, seed: int = 0) -> np.ndarray:
    """A random image."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def two_boxes(pixels: np.ndarray | None = None, form: str = "PNG", *, uvs: str = "apart") -> Gltf:
    """Two boxes with normals: 'Body' has the left half of the atlas, 'The Lid' the right one.

    Args:
        pixels: The base color texture; None: blue materials without a texture.
        form: Format of the image.
        uvs: `apart`; `same`: both boxes in the left half; `repeated`: beyond [0, 1]; `none`: no texture coordinates.
    """
    out = Gltf()
    positions, coordinates, faces = cube()
    normals = np.repeat(positions.reshape(6, 4, 3).mean(1) * 2, 4, 0).astype("<f4")
    if pixels is None:
        material = out.add("materials", pbrMetallicRoughness={"baseColorFactor": [0, 0, 1, 0.5]}, name="Paint")
    else:
        image = out.image(pixels, form)
        texture = out.add("textures", source=image)
        surface = {"baseColorTexture": {"index": texture}, "roughnessFactor": 0.25}
        material = out.add("materials", pbrMetallicRoughness=surface, name="Paint")
    for index, name in enumerate(NAMES):
        side = np.repeat(np.arange(6), 4)
        # A cell of an atlas of 4 columns and 3 rows, of which each box has two columns, with a gap of a tenth.
        cell = np.stack([side % 2 + (2 * index if uvs == "apart" else 0), side // 2], 1)
        places = (cell + 0.05 + 0.9 * coordinates) / [4, 3] * (3.0 if uvs == "repeated" else 1.0)
        attributes = {"POSITION": out.accessor(positions), "NORMAL": out.accessor(normals)}
        if uvs != "none":
            attributes["TEXCOORD_0"] = out.accessor(places.astype("<f4"))
        part = {"attributes": attributes, "indices": out.accessor(faces.reshape(-1)), "material": material}
        mesh = out.add("meshes", primitives=[part], name=f"mesh {index}")
        out.node(mesh=mesh, name=name, translation=[5.0, 1.2 * index, -2.0], scale=[1.0 + index, 1, 1])
    return out


def read_glb(path: Path) -> tuple[dict[str, Any], bytes]:
    """The JSON and the binary chunk of a GLB."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    size = struct.unpack_from("<I", data, 20 + length)[0]
    assert data[:4] == b"glTF" and struct.unpack_from("<I", data, 8)[0] == len(data)
    return json.loads(data[20 : 20 + length]), data[28 + length : 28 + length + size]


def view_bytes(tree: dict[str, Any], binary: bytes, index: int) -> bytes:
    view = tree["bufferViews"][index]
    start = view.get("byteOffset", 0)
    return binary[start : start + view["byteLength"]]


def accessor_bytes(path: Path) -> list[bytes]:
    """The bytes of the buffer views of all accessors."""
    tree, binary = read_glb(path)
    return [view_bytes(tree, binary, each["bufferView"]) for each in tree["accessors"]]


def base_color_image(path: Path, material: int = 0) -> Image.Image:
    """The base color image of a material, decoded."""
    tree, binary = read_glb(path)
    texture = tree["materials"][material]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    image = tree["images"][tree["textures"][texture]["source"]]
    return Image.open(io.BytesIO(view_bytes(tree, binary, image["bufferView"])))


@contextmanager
def buildable(config: Any) -> Iterator[Any]:
    """The settings of a representation; those that need a file to start from get one, seen from a corner."""
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(config, RetextureConfig):
            path = two_boxes().save(Path(folder))
            config = replace(config, initial_mesh=str(path), initial_yaw=45.0, start="gray", texture_size=64)
        yield config
