"""Replacement of the base color texture in a glTF file; everything else stays as it is."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.formats.gltf_materials import (
    BETTER_SOURCES,
    base_color,
    image_sources,
    other_textures,
)
from steindreamer.representations.mesh.formats.neighbors import IMAGES

from .gltf_builder import GltfBuilder, png

BASE_COLOR = "base_color"
"""Name of a new image."""
_PLAIN = {"metallicFactor": 0.0, "roughnessFactor": 0.8}
"""Surface of a mesh without a material."""


def with_base_color(
    document: GltfDocument, materials: Sequence[int | None], image: UInt8[np.ndarray, "h w 3"]
) -> GltfBuilder:
    """The file with another base color texture, as a lossless PNG; an alpha channel is kept.

    An image that is used for other things too is left as it is, and a new one is added. A material without a texture
    gets one, and its color becomes white.

    Args:
        document: A GLB whose only buffer holds everything; it is changed.
        materials: Indices of the materials that get the texture; all have the same image, or none.
        image: The texture, display sRGB.
    """
    tree = document.tree
    binary = document.buffer(0) if document.items("buffers") else b""
    indices = [_new_material(tree) if index is None else index for index in materials]
    textures = {index: _texture_of(tree["materials"][index]) for index in indices}
    old = next((image_sources(tree["textures"][each])[0] for each in textures.values() if each is not None), None)
    if old is None:
        builder = GltfBuilder(tree, binary)
        _add_texture(tree, indices, builder.texture(BASE_COLOR, image))
        return builder
    view = tree["images"][old]["bufferView"]
    raw = with_alpha(image, bytes(GltfAccessors(document).view(view)[0]))
    changed = {each for each in textures.values() if each is not None}
    if _is_shared(tree, old, changed, indices):
        builder = GltfBuilder(tree, binary)
        new = builder.add("images", {"name": BASE_COLOR, "mimeType": "image/png", "bufferView": builder.view(raw)})
        for index in indices:
            texture = tree["textures"][textures[index]]
            section, _, key = base_color(tree["materials"][index])
            section[key] = {**section[key], "index": builder.add("textures", _showing(texture, new))}
    else:
        binary = _without_view(tree, binary, view)
        builder = GltfBuilder(tree, binary)
        added = tree["bufferViews"].pop(builder.view(raw))
        tree["bufferViews"][view] = added
        tree["images"][old]["mimeType"] = "image/png"
        for index in changed:
            tree["textures"][index] = _showing(tree["textures"][index], old)
    _drop_unused_extensions(tree)
    return builder


def _texture_of(material: dict[str, Any]) -> int | None:
    section, _, key = base_color(material)
    return section[key]["index"] if key in section else None


def _new_material(tree: dict[str, Any]) -> int:
    """Give primitives without a material one. Returns its index."""
    tree.setdefault("materials", []).append({"pbrMetallicRoughness": dict(_PLAIN)})
    index = len(tree["materials"]) - 1
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", index)
    return index


def _add_texture(tree: dict[str, Any], materials: Sequence[int], texture: int) -> None:
    """Let materials without a texture show one, with the texture coordinates of their other textures."""
    for index in materials:
        material = tree["materials"][index]
        other = next(filter(None, other_textures(material).values()), {})
        place = {key: other[key] for key in ("texCoord", "extensions") if key in other}
        if base_color(material)[0] is not material.get("pbrMetallicRoughness"):
            material.setdefault("pbrMetallicRoughness", {})
        section, factor, key = base_color(material)
        section[key] = {**place, "index": texture}
        if factor in section:
            section[factor] = [1.0, 1.0, 1.0, section[factor][3]]


def _is_shared(tree: dict[str, Any], image: int, textures: set[int], materials: Sequence[int]) -> bool:
    """Whether anything besides the base color of the materials shows the image."""
    showing = {index for index, each in enumerate(tree["textures"]) if image in image_sources(each)}
    if not showing <= textures:
        return True
    for index, material in enumerate(tree["materials"]):
        others = {info["index"] for info in other_textures(material).values() if info}
        own = _texture_of(material)
        if others & showing or (own in showing and index not in materials) or showing & _in_extensions(material):
            return True
    return False


def _in_extensions(material: dict[str, Any]) -> set[int]:
    """Textures of a material's extensions, besides its base color."""
    section, _, key = base_color(material)
    out: set[int] = set()
    for extension in material.get("extensions", {}).values():
        if isinstance(extension, dict):
            out |= {
                value["index"]
                for name, value in extension.items()
                if isinstance(value, dict) and "index" in value and not (extension is section and name == key)
            }
    return out


def _showing(texture: dict[str, Any], image: int) -> dict[str, Any]:
    """The texture with a PNG as its only image."""
    out = {**texture, "source": image}
    extensions = {name: value for name, value in texture.get("extensions", {}).items() if name not in BETTER_SOURCES}
    out.pop("extensions", None)
    return out | ({"extensions": extensions} if extensions else {})


def _drop_unused_extensions(tree: dict[str, Any]) -> None:
    """Remove image formats that no texture has any more from the lists of extensions."""
    used = {name for texture in tree["textures"] for name in texture.get("extensions", {})}
    for key in ("extensionsUsed", "extensionsRequired"):
        kept = [name for name in tree.get(key, []) if name not in BETTER_SOURCES or name in used]
        if kept:
            tree[key] = kept
        else:
            tree.pop(key, None)


def with_alpha(image: UInt8[np.ndarray, "h w 3"], old: bytes) -> bytes:
    """The image as a PNG, with the alpha channel of the old image file if that has one."""
    with Image.open(io.BytesIO(old), formats=IMAGES) as before:
        if not before.has_transparency_data:
            return png(image)
        alpha = np.asarray(before.convert("RGBA"))[..., 3:]
    return png(np.concatenate([image, alpha], 2))


def _without_view(tree: dict[str, Any], binary: bytes, index: int) -> bytes:
    """The buffer without the bytes of a view, if no other view has them; the others are moved by a multiple of 8."""
    view = tree["bufferViews"][index]
    start, length = view.get("byteOffset", 0), view["byteLength"]
    others = [
        place
        for number, each in enumerate(tree["bufferViews"])
        for place in (each, *each.get("extensions", {}).values())
        if number != index and isinstance(place, dict) and "byteLength" in place
    ]
    if any(
        place.get("byteOffset", 0) < start + length and place.get("byteOffset", 0) + place["byteLength"] > start
        for place in others
    ):
        return binary
    cut = length // 8 * 8
    for place in others:
        if place.get("byteOffset", 0) >= start + length:
            place["byteOffset"] -= cut
    return binary[:start] + binary[start + cut :]
