"""Packing of a glTF document and the files that it refers to into one GLB."""

from __future__ import annotations

import copy
import json
import struct
from typing import Any

from .gltf_document import GltfDocument
from .neighbors import read_uri

_MIME_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp"}


def in_one_buffer(document: GltfDocument) -> tuple[dict[str, Any], bytes]:
    """The JSON and the only buffer of a document whose buffers and images may be in other files.

    Raises ValueError for an image of another format than PNG, JPEG and WebP; OSError if a file cannot be read.
    """
    tree = copy.deepcopy(document.tree)
    binary = bytearray()
    starts = []
    for index in range(len(tree.get("buffers", []))):
        binary += b"\0" * (-len(binary) % 8)
        starts.append(len(binary))
        binary += document.buffer(index)
    for view in tree.get("bufferViews", []):
        for place in (view, *view.get("extensions", {}).values()):
            if isinstance(place, dict) and "buffer" in place:
                place["byteOffset"] = place.get("byteOffset", 0) + starts[place["buffer"]]
                place["buffer"] = 0
    for image in tree.get("images", []):
        if "uri" in image:
            data = read_uri(document.folder, image.pop("uri"))
            kind = next((kind for start, kind in _MIME_TYPES.items() if data.startswith(start)), None)
            if kind is None:
                raise ValueError("an image of the file is neither PNG, JPEG nor WebP; convert it to PNG")
            image |= {"bufferView": append_view(tree, binary, data), "mimeType": kind}
    return tree, bytes(binary)


def append_view(tree: dict[str, Any], binary: bytearray, raw: bytes) -> int:
    """Append bytes to the only buffer as a buffer view, aligned to 4 bytes. Returns its index."""
    binary += b"\0" * (-len(binary) % 4)
    views = tree.setdefault("bufferViews", [])
    views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": len(raw)})
    binary += raw
    return len(views) - 1


def glb(tree: dict[str, Any], binary: bytes) -> bytes:
    """The content of a .glb file.

    Args:
        tree: Its JSON; the size of the first buffer is set.
        binary: The content of its first buffer.
    """
    if binary:
        tree["buffers"] = [{"byteLength": len(binary)}, *tree.get("buffers", [])[1:]]
    text = json.dumps(tree, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    body = binary + b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text
    if body:
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def is_glb(data: bytes) -> bool:
    """Whether the content of a file is that of a .glb file."""
    return data.startswith(b"glTF")
