"""A builder for glTF files, valid and broken, independent of the reader."""

from __future__ import annotations

import base64
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

COMPONENTS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
TYPES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
SIDES = (((0, 1), 2), ((1, 2), 0), ((2, 0), 1))
"""The two axes in each side of the cube, and its normal axis."""


class Gltf:
    """A glTF document under construction: JSON tree and binary buffer."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}]}
        self.binary = bytearray()

    def add(self, name: str, /, **item: Any) -> int:
        """Append an item to a top-level list and return its index."""
        self.tree.setdefault(name, []).append(item)
        return len(self.tree[name]) - 1

    def view(self, raw: bytes, **item: Any) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        index = self.add("bufferViews", buffer=0, byteOffset=len(self.binary), byteLength=len(raw), **item)
        self.binary += raw
        return index

    def accessor(self, values: np.ndarray, **item: Any) -> int:
        values = values.reshape(len(values), -1)
        kind = TYPES[values.dtype.str[1:]]
        return self.add(
            "accessors",
            bufferView=self.view(values.tobytes()),
            componentType=kind,
            count=len(values),
            type=COMPONENTS[values.shape[1]],
            **item,
        )

    def image(self, pixels: np.ndarray, form: str = "PNG") -> int:
        return self.add("images", bufferView=self.view(image(pixels, form)), mimeType=f"image/{form.lower()}")

    def node(self, **item: Any) -> int:
        """Append a root node of the scene and return its index."""
        index = self.add("nodes", **item)
        self.tree["scenes"][0]["nodes"].append(index)
        return index

    def cube(self, node: dict[str, Any] | None = None, **primitive: Any) -> dict[str, Any]:
        """Add a cube of side 1 at the origin, with the unit square as TEXCOORD_0 of each side; return the part."""
        positions, coordinates, faces = cube()
        attributes = {
            "POSITION": self.accessor(positions),
            "TEXCOORD_0": self.accessor(coordinates),
            **primitive.pop("attributes", {}),
        }
        part = {"attributes": attributes, "indices": self.accessor(faces.reshape(-1)), **primitive}
        self.node(mesh=self.add("meshes", primitives=[part]), **(node or {}))
        return part

    def painted(self, pixels: np.ndarray, info: dict[str, Any] | None = None, **sampler: Any) -> int:
        """Add a material with an image as its base color and return its index."""
        texture = {"source": self.image(pixels)} | ({"sampler": self.add("samplers", **sampler)} if sampler else {})
        index = self.add("textures", **texture)
        return self.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": index, **(info or {})}})

    def glb(self) -> bytes:
        tree = self.tree | {"buffers": [{"byteLength": len(self.binary)}]}
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        body = bytes(self.binary) + b"\0" * (-len(self.binary) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def gltf(self, uri: str = "") -> bytes:
        """The .gltf content, with the buffer embedded or in the file `uri`."""
        inside = "data:application/octet-stream;base64," + base64.b64encode(bytes(self.binary)).decode()
        return json.dumps(self.tree | {"buffers": [{"byteLength": len(self.binary), "uri": uri or inside}]}).encode()

    def save(self, folder: Path, name: str = "mesh.glb") -> Path:
        path = folder / name
        path.write_bytes(self.glb() if name.endswith(".glb") else self.gltf())
        return path


def cube() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions and texture coordinates of 24 vertices, and outward faces."""
    positions, coordinates = [], []
    for (first, second), axis in SIDES:
        for sign in (-1, 1):
            for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
                corner = [0.0, 0.0, 0.0]
                corner[first], corner[second], corner[axis] = (u - 0.5) * sign, v - 0.5, 0.5 * sign
                positions.append(corner)
                coordinates.append((u, v))
    faces = np.concatenate([np.array([[0, 1, 2], [0, 2, 3]]) + 4 * side for side in range(6)])
    return np.array(positions, "<f4"), np.array(coordinates, "<f4"), faces.astype("<u2")


def image(pixels: np.ndarray, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint8)
    Image.fromarray(pixels).save(buffer, form, **({"lossless": True} if form == "WEBP" else {}))
    return buffer.getvalue()


def light(srgb: float) -> float:
    """Display sRGB to linear RGB."""
    return srgb / 12.92 if srgb <= 0.04045 else ((srgb + 0.055) / 1.055) ** 2.4
