"""A reader of binary FBX files, as a tree of nodes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_ARRAYS = {"f": "<f4", "d": "<f8", "i": "<i4", "l": "<i8", "b": "?"}
_SCALARS = {"Y": "<h", "C": "<?", "I": "<i", "F": "<f", "D": "<d", "L": "<q"}


@dataclass
class FbxNode:
    """A node with its properties and its children."""

    name: str
    properties: list[Any] = field(default_factory=list)
    children: list[FbxNode] = field(default_factory=list)

    def all(self, name: str) -> list[FbxNode]:
        """The nodes of a name at any depth."""
        return [each for child in self.children for each in ([child] if child.name == name else []) + child.all(name)]

    def setting(self, name: str, usual: list[Any] | None = None) -> list[Any] | None:
        """The values of an entry of `Properties70`; `usual` if it is left out, as defaults are."""
        return next((each.properties[4:] for each in self.all("P") if each.properties[0] == name), usual)


def read_fbx(path: Path) -> FbxNode:
    """Read a binary FBX file."""
    data = path.read_bytes()
    assert data.startswith(b"Kaydara FBX Binary  \0\x1a\0")
    wide = struct.unpack_from("<I", data, 23)[0] >= 7500
    head = struct.Struct("<QQQB" if wide else "<IIIB")

    def nodes(at: int, end: int) -> tuple[list[FbxNode], int]:
        out = []
        while at < end:
            stop, count, length, size = head.unpack_from(data, at)
            at += head.size
            if stop == 0:
                break
            node = FbxNode(data[at : at + size].decode())
            at += size
            inner = at + length
            for _ in range(count):
                value, at = _property(data, at)
                node.properties.append(value)
            node.children, _ = nodes(inner, stop)
            out.append(node)
            at = stop
        return out, at

    return FbxNode("", children=nodes(27, len(data))[0])


def _property(data: bytes, at: int) -> tuple[Any, int]:
    kind = chr(data[at])
    at += 1
    if kind in _SCALARS:
        return struct.unpack_from(_SCALARS[kind], data, at)[0], at + struct.calcsize(_SCALARS[kind])
    if kind in "SR":
        size = struct.unpack_from("<I", data, at)[0]
        raw = data[at + 4 : at + 4 + size]
        return (raw.split(b"\0")[0].decode() if kind == "S" else raw), at + 4 + size
    count, packed, size = struct.unpack_from("<III", data, at)
    raw = data[at + 12 : at + 12 + size]
    return np.frombuffer(zlib.decompress(raw) if packed else raw, _ARRAYS[kind], count), at + 12 + size
