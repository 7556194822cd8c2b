"""Changes of the buffer views of a glTF document."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ...export.gltf_builder import GltfBuilder


def image_bytes(builder: GltfBuilder, index: int) -> bytes:
    """The file of an image inside the buffer."""
    view = builder.tree["bufferViews"][builder.tree["images"][index]["bufferView"]]
    start = view.get("byteOffset", 0)
    return builder.binary[start : start + view["byteLength"]]


def with_views(builder: GltfBuilder, replaced: Mapping[int, bytes | None]) -> GltfBuilder:
    """The document with other bytes in some buffer views.

    Args:
        builder: the document; its views may be compressed (EXT_meshopt_compression).
        replaced: the bytes by the index of the view; None: the view is removed, and nothing may refer to it.
    """
    tree, binary = copy.deepcopy(builder.tree), builder.binary
    views = tree.pop("bufferViews", [])
    out, numbers = GltfBuilder(tree), dict[int, int]()
    out.fallback_bytes = builder.fallback_bytes
    for index, view in enumerate(views):
        stored = next((each for each in view.get("extensions", {}).values() if "buffer" in each), view)
        start = stored.get("byteOffset", 0)
        data = replaced.get(index, binary[start : start + stored["byteLength"]])
        if data is None:
            continue
        numbers[index] = number = out.view(data)
        stored |= tree["bufferViews"][number]
        tree["bufferViews"][number] = view
    _renumber([value for key, value in tree.items() if key != "bufferViews"], numbers)
    return out


def _renumber(item: Any, numbers: Mapping[int, int]) -> None:
    """Change the references to buffer views, anywhere in the JSON."""
    if isinstance(item, dict):
        if isinstance(item.get("bufferView"), int):
            item["bufferView"] = numbers[item["bufferView"]]
        for value in item.values():
            _renumber(value, numbers)
    elif isinstance(item, list):
        for value in item:
            _renumber(value, numbers)
