"""The content of an asset file as plain data; all formats share it."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from steindreamer.representations.mesh.formats.neighbors import IMAGES, ImageReader
from steindreamer.representations.mesh.painted import REPEAT, Paint

Slot: TypeAlias = Literal["base_color", "metallic_roughness", "normal", "occlusion", "emissive"]
"""The use of a texture."""
MAX_DECODED = 1 << 26
"""Largest number of pixels of an image whose texels are checked: 8192 x 8192."""
KTX2 = b"\xabKTX 20\xbb\r\n\x1a\n"


@dataclass(frozen=True)
class ImageFile:
    """An image as stored; its size comes from the header, without decoding."""

    name: str
    """Name or file name; may be empty."""
    data: bytes = field(repr=False)
    """The encoded image; empty if it cannot be read."""
    error: str = ""
    """Why it cannot be read; empty if it can."""

    @cached_property
    def header(self) -> tuple[str, int, int]:
        """Format in upper case, width and height in pixels; an empty format if the header is broken."""
        if self.data.startswith(KTX2) and len(self.data) >= 28:
            width, height = struct.unpack_from("<II", self.data, 20)
            return "KTX2", width, height
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's warnings about large images; nothing is decoded here
                with Image.open(io.BytesIO(self.data), formats=IMAGES) as image:
                    return str(image.format), image.width, image.height
        except Exception:  # Pillow's parsers may raise any type
            return "", 0, 0

    @property
    def size(self) -> int:
        """Longest side in pixels; 0 if the header is broken."""
        return max(self.header[1:])

    def pixels(self) -> UInt8[np.ndarray, "h w 3"] | None:
        """The decoded image; None if it is broken, too large or of a format that is not decoded (KTX2)."""
        if self.header[1] * self.header[2] > MAX_DECODED:
            return None
        try:
            return ImageReader().decode(self.data).numpy()
        except ValueError:
            return None


@dataclass(frozen=True)
class TextureUse:
    """A texture of a material."""

    image: int
    """Index of the image; -1: it has none of a known format."""
    uv_set: int = 0
    """Number of the texture coordinate set."""
    wrap: tuple[str, str] = (REPEAT, REPEAT)
    """Wrap modes along u and v."""
    transform: Float[np.ndarray, "2 3"] | None = None
    """Affine transform of the texture coordinates; None: identity."""


@dataclass(frozen=True)
class Material:
    """A material in terms of metalness and roughness."""

    name: str
    paint: Paint = field(repr=False)
    """Base color with its texture decoded, for rendering."""
    textures: Mapping[Slot, TextureUse] = field(default_factory=dict)
    metallic: float = 1.0
    """Metalness factor, valid in [0, 1]."""
    roughness: float = 1.0
    """Roughness factor, valid in [0, 1]."""
    alpha: str = "OPAQUE"
    """Alpha mode: OPAQUE, MASK or BLEND."""
    double_sided: bool = False
    physical: bool = True
    """Whether the format describes metalness and roughness."""


@dataclass(frozen=True)
class Node:
    """A named object of the scene."""

    name: str
    local: Float[np.ndarray, "4 4"]
    """Transform to the parent."""
    has_mesh: bool = True
    collides: bool = False
    """Whether an extension gives it a collider."""


@dataclass(frozen=True, eq=False)
class Part:
    """Triangles with one material, placed in the scene by one node."""

    node: str
    """Name of the node."""
    mesh: str
    """Name of the mesh."""
    instance: int
    """Index of the placed object; its parts have the same."""
    material: int
    """Index of the material; -1: none."""
    world: Float[np.ndarray, "4 4"]
    """Transform to the scene."""
    positions: Float[np.ndarray, "v 3"]
    """Positions as written."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices, as written."""
    normals: Float[np.ndarray, "v 3"] | None = None
    tangents: Float[np.ndarray, "v 4"] | None = None
    uvs: Mapping[int, Float[np.ndarray, "v 2"]] = field(default_factory=dict)
    """Texture coordinates by set, v pointing down."""
    colors: Float[np.ndarray, "v 3"] | None = None
    """Vertex color factors."""
    collider: bool = False
    """Whether it is a collider, which is not drawn."""
    level: int = 0
    """Level of detail; 0 is the most detailed."""

    @property
    def label(self) -> str:
        """Name for messages."""
        return self.node or self.mesh or f"object {self.instance}"

    @cached_property
    def vertices(self) -> Float[np.ndarray, "v 3"]:
        """Positions in the scene."""
        return self.positions @ self.world[:3, :3].T + self.world[:3, 3]

    @cached_property
    def directions(self) -> Float[np.ndarray, "v 3"] | None:
        """Unit normals in the scene; None without normals."""
        if self.normals is None:
            return None
        # The cofactor matrix transforms normals, also under a singular or mirroring transform.
        a, b, c = self.world[:3, :3].T
        turned = self.normals @ np.stack([np.cross(b, c), np.cross(c, a), np.cross(a, b)])
        turned *= -1.0 if self.mirrored else 1.0
        return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-300)

    @property
    def mirrored(self) -> bool:
        """Whether the transform mirrors the part."""
        return bool(np.linalg.det(self.world[:3, :3]) < 0)

    @cached_property
    def outward(self) -> Int[np.ndarray, "f 3"]:
        """The faces as wound in the scene: a mirroring transform reverses them, as every engine does."""
        return self.faces[:, ::-1] if self.mirrored else self.faces


@dataclass(frozen=True, eq=False)
class AssetFile:
    """An asset file."""

    path: Path
    format: str
    """Suffix without the dot, in lower case."""
    file_bytes: int
    """Size in bytes, including the files that it refers to."""
    parts: tuple[Part, ...]
    materials: tuple[Material, ...] = ()
    images: tuple[ImageFile, ...] = ()
    nodes: tuple[Node, ...] = ()
    meters: bool = True
    """Whether the format has meters and +Y up; else unit and axes are those of the program that reads it."""
    named: bool = True
    """Whether the format has names."""
    required: tuple[str, ...] = ()
    """Extensions that a reader must support."""
    unused: tuple[str, ...] = ()
    """Data that nothing refers to, such as "materials[2]"."""
    missing: tuple[str, ...] = ()
    """Parts of the file, or files that it refers to, that cannot be read, a line each."""

    @cached_property
    def drawn(self) -> tuple[Part, ...]:
        """The parts that are drawn, of all levels; those of a file of colliders are its colliders."""
        return tuple(part for part in self.parts if not part.collider) or self.parts

    @cached_property
    def surfaces(self) -> tuple[Part, ...]:
        """The parts that are drawn at the most detailed level."""
        level = min(part.level for part in self.drawn)
        return tuple(part for part in self.drawn if part.level == level)

    @cached_property
    def used_materials(self) -> tuple[int, ...]:
        """Indices of the materials of the surfaces, ascending."""
        return tuple(sorted({part.material for part in self.surfaces if part.material >= 0}))

    def slots(self) -> dict[int, set[Slot]]:
        """Uses of the images of the surfaces, by index of the image."""
        out: dict[int, set[Slot]] = {}
        for index in self.used_materials:
            for slot, use in self.materials[index].textures.items():
                out.setdefault(use.image, set()).add(slot)
        return out
