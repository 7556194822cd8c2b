"""Data of a glTF file that its scenes and animations do not use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_KINDS = {
    **{"mesh": "meshes", "material": "materials", "skin": "skins", "camera": "cameras", "node": "nodes"},
    **{"nodes": "nodes", "children": "nodes", "joints": "nodes", "skeleton": "nodes", "ids": "nodes"},
    **{"indices": "accessors", "inverseBindMatrices": "accessors", "input": "accessors", "output": "accessors"},
    **{"bufferView": "bufferViews", "sampler": "samplers", "source": "images"},
}
"""List that a number, or the numbers of a list, under this key refer to."""
_LISTS = ("nodes", "meshes", "materials", "textures", "images", "samplers", "accessors", "bufferViews", "skins")


def unused_items(tree: dict[str, Any]) -> list[str]:
    """Items that nothing reachable refers to, such as "materials[2]"."""
    used: set[tuple[str, int]] = set()
    waiting: list[Any] = [tree.get(key) for key in ("scenes", "animations", "extensions")]
    while waiting:
        for kind, index in _references(waiting.pop()):
            items = tree.get(kind, [])
            if (kind, index) not in used and 0 <= index < len(items):
                used.add((kind, index))
                waiting.append(items[index])
    return [
        f"{kind}[{index}]" for kind in _LISTS for index in range(len(tree.get(kind, []))) if (kind, index) not in used
    ]


def _references(item: Any) -> Iterator[tuple[str, int]]:
    waiting: list[tuple[str, Any]] = [("", item)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            if key.endswith("Texture") and isinstance(value.get("index"), int):
                yield "textures", value["index"]
            # Attributes and morph targets map names to accessors.
            named = key in ("attributes", "targets")
            waiting += [("indices" if named and isinstance(each, int) else name, each) for name, each in value.items()]
        elif isinstance(value, list):
            waiting += [(key, each) for each in value]
        elif isinstance(value, int) and key in _KINDS:
            yield _KINDS[key], value
