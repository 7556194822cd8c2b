"""Levels of detail and colliders by the names that engines know."""

from __future__ import annotations

import re

_LEVEL = re.compile(r"(?:^|[_.\- ])LOD[_ ]?(\d{1,2})$", re.IGNORECASE)
# Unreal: "Interchange Import Reference", collision prefixes. Godot: "Node type customization using name suffixes".
_COLLIDER = re.compile(
    r"^(?:UCX|UBX|USP|UCP|MCDCX)_|[-_$](?:colonly|convcolonly|collider|collision)(?:[_.]?\d+)?$", re.IGNORECASE
)
_COLLIDES = re.compile(r"[-_$](?:col|convcol)$", re.IGNORECASE)


def is_collider(*names: str) -> bool:
    """Whether an object with these names (node, mesh) is a collider, which is not drawn."""
    return any(map(_COLLIDER.search, names))


def generates_collider(name: str) -> bool:
    """Whether the importer makes a collider from the drawn object of this name."""
    return _COLLIDES.search(name) is not None


def level_of(*names: str) -> int:
    """Level of detail of an object with these names (node, mesh); 0 is the most detailed."""
    return next((int(found[1]) for found in map(_LEVEL.search, names) if found), 0)


def base_name(name: str) -> str:
    """A name without the suffix of its level."""
    return _LEVEL.sub("", name)
