"""Removal of the levels of detail that a glTF file already has (MSFT_lod)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .lod_extension import LOD_EXTENSION

_DATA = ("meshes", "materials", "textures", "images", "accessors", "bufferViews")
"""Kinds of items that are removed with the levels, each only referred to by those before it."""
Reference = tuple[str, Any, Any]
"""A kind of items, and the container and the key at which the index of one stands."""


def drop_levels(tree: dict[str, Any], binary: bytes) -> bytes:
    """Remove all levels of detail but the first, and the data that only they use, from a file.

    Args:
        tree: JSON of the file, which is changed.
        binary: content of its only buffer.

    Returns:
        The content of the buffer of the smaller file.
    """
    nodes = tree.get("nodes", [])
    coarse = {index for node in nodes for index in node.get("extensions", {}).get(LOD_EXTENSION, {}).get("ids", [])}
    if not coarse:
        return binary
    before = {kind: _used(tree, kind) for kind in _DATA}
    for node in nodes:
        _without(node, "extensions", LOD_EXTENSION)
        _without(node, "extras", "MSFT_screencoverage")
    tree["extensionsUsed"] = [name for name in tree["extensionsUsed"] if name != LOD_EXTENSION]
    if not tree["extensionsUsed"]:
        del tree["extensionsUsed"]
    for node in [*nodes, *tree.get("scenes", [])]:
        key = "nodes" if "nodes" in node else "children"
        if key in node:
            node[key] = [index for index in node[key] if index not in coarse]
    _remove(tree, "nodes", coarse)
    for kind in _DATA:
        _remove(tree, kind, before[kind] - _used(tree, kind))
    return _repacked(tree, binary)


def _without(item: dict[str, Any], key: str, name: str) -> None:
    if name in item.get(key, {}):
        del item[key][name]
        if not item[key]:
            del item[key]


def _used(tree: dict[str, Any], kind: str) -> set[int]:
    return {container[key] for name, container, key in _references(tree) if name == kind}


def _remove(tree: dict[str, Any], kind: str, indices: set[int]) -> None:
    """Remove items and renumber the references to the others."""
    if not indices:
        return
    kept = [index for index in range(len(tree[kind])) if index not in indices]
    number = {old: new for new, old in enumerate(kept)}
    tree[kind] = [tree[kind][index] for index in kept]
    for name, container, key in _references(tree):
        if name == kind:
            container[key] = number[container[key]]


def _references(tree: dict[str, Any]) -> Iterator[Reference]:
    """All references of the core specification, of MSFT_lod, of texture formats and of Draco."""
    for scene in tree.get("scenes", []):
        yield from _each("nodes", scene.get("nodes", []))
    for node in tree.get("nodes", []):
        yield from _each("nodes", node.get("children", []))
        yield from _each("nodes", node.get("extensions", {}).get(LOD_EXTENSION, {}).get("ids", []))
        yield from _given("meshes", node, "mesh")
    for skin in tree.get("skins", []):
        yield from _each("nodes", skin["joints"])
        yield from _given("nodes", skin, "skeleton")
        yield from _given("accessors", skin, "inverseBindMatrices")
    for animation in tree.get("animations", []):
        for channel in animation["channels"]:
            yield from _given("nodes", channel["target"], "node")
        for sampler in animation["samplers"]:
            yield from _given("accessors", sampler, "input", "output")
    for mesh in tree.get("meshes", []):
        for primitive in mesh["primitives"]:
            for attributes in (primitive["attributes"], *primitive.get("targets", [])):
                yield from _given("accessors", attributes, *attributes)
            yield from _given("accessors", primitive, "indices")
            yield from _given("materials", primitive, "material")
            for extension in primitive.get("extensions", {}).values():
                yield from _given("bufferViews", extension, "bufferView")
    for material in tree.get("materials", []):
        yield from _textures(material)
    for texture in tree.get("textures", []):
        for part in (texture, *texture.get("extensions", {}).values()):
            yield from _given("images", part, "source")
    for item in [*tree.get("images", []), *tree.get("accessors", [])]:
        sparse = item.get("sparse", {})
        for part in (item, sparse.get("indices", {}), sparse.get("values", {})):
            yield from _given("bufferViews", part, "bufferView")


def _textures(item: dict[str, Any]) -> Iterator[Reference]:
    """References at any depth of a material."""
    for key, value in item.items():
        if isinstance(value, dict):
            if key.endswith("Texture"):
                yield from _given("textures", value, "index")
            yield from _textures(value)


def _each(kind: str, indices: list[int]) -> Iterator[Reference]:
    for position in range(len(indices)):
        yield kind, indices, position


def _given(kind: str, item: dict[str, Any], *keys: str) -> Iterator[Reference]:
    for key in keys:
        if key in item:
            yield kind, item, key


def _repacked(tree: dict[str, Any], binary: bytes) -> bytes:
    """The bytes of the remaining views, one after another; those of compressed views may be shared and stay."""
    views = tree.get("bufferViews", [])
    if any("extensions" in view for view in views):
        return binary
    out = bytearray()
    for view in views:
        start = view.get("byteOffset", 0)
        out += b"\0" * (-len(out) % 8)
        view["byteOffset"] = len(out)
        out += binary[start : start + view["byteLength"]]
    return bytes(out)
