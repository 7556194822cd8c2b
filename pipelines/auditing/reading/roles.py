"""The role of an object by the names that engines know: levels of detail and colliders."""

from __future__ import annotations

import re

from .asset_file import Role

_LEVEL = re.compile(r"[_.\- ]?LOD[_ ]?(\d{1,2})$", re.IGNORECASE)
_COLLIDER = re.compile(
    # Unreal: "Interchange Import Reference", collision prefixes. Godot: "Node type customization using name suffixes".
    r"^(?:UCX|UBX|USP|UCP|MCDCX)_|[-_$](?:col|convcol|colonly|convcolonly|collider|collision)(?:[_.]?\d+)?$",
    re.IGNORECASE,
)


def role_of(*names: str) -> tuple[Role, int]:
    """Role and level of an object with these names (node, mesh)."""
    if any(map(_COLLIDER.search, names)):
        return "collider", 0
    for name in names:
        if found := _LEVEL.search(name):
            level = int(found[1])
            return ("lod" if level else "surface"), level
    return "surface", 0


def base_name(name: str) -> str:
    """A name without the suffix of its level."""
    return _LEVEL.sub("", name)
