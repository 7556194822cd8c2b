"""The container of a glTF 2.0 file: its JSON, its buffers and its required extensions."""

from __future__ import annotations

import json
import struct
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from .neighbors import read_uri

SUPPORTED = (
    "EXT_mesh_gpu_instancing",
    "EXT_meshopt_compression",
    "EXT_texture_avif",
    "EXT_texture_webp",
    "KHR_animation_pointer",
    "KHR_draco_mesh_compression",
    "KHR_lights_punctual",
    "KHR_mesh_quantization",
    "KHR_meshopt_compression",
    "KHR_node_visibility",
    "KHR_texture_transform",
    "KHR_xmp_json_ld",
)
"""Extensions that a file may require, besides all `KHR_materials_*`, which do not change shape and base color."""
ALTERNATIVES = {
    "KHR_texture_basisu": "store its images as PNG or JPEG, for example with: gltf-transform ktxdecompress IN OUT",
    "MSFT_texture_dds": "store its images as PNG or JPEG",
    "KHR_gaussian_splatting": "a run starts from Gaussians with --repr gaussians representation.initial_ply=FILE",
}
"""Advice for files that require an unsupported extension, by extension."""
_MAGIC, _JSON, _BINARY = b"glTF", 0x4E4F534A, 0x004E4942


class GltfDocument:
    """The JSON tree of a file, and its buffers, which are read on demand.

    Args:
        data: Content of the file.
        folder: Folder of the files to which it refers.
        readable: Extensions that the file may require besides `SUPPORTED`.

    Raises:
        ValueError: The file is broken or requires an unsupported extension.
    """

    def __init__(self, data: bytes, folder: Path, readable: Collection[str] = ()) -> None:
        self.folder = folder
        text, self._binary = _chunks(data) if data.startswith(_MAGIC) else (data, None)
        try:
            self.tree = json.loads(text.decode("utf-8-sig"))
        except ValueError as error:  # invalid text encoding or JSON syntax
            raise ValueError(f"not a glTF file: its JSON is broken ({error})") from None
        if not isinstance(self.tree, dict) or not isinstance(self.tree.get("asset"), dict):
            raise ValueError("not a glTF file: its JSON has no 'asset'")
        version = str(self.tree["asset"].get("version", ""))
        if not version.startswith("2."):
            raise ValueError(f"its glTF version is '{version}'; convert it to 2.0")
        self._refuse_extensions({*SUPPORTED, *readable})
        self._buffers: dict[int, bytes] = {}

    def items(self, name: str) -> list[Any]:
        """A top-level list of the JSON, such as `nodes`; empty if it is missing."""
        return self.tree.get(name, [])

    def item(self, name: str, index: Any) -> dict[str, Any]:
        """An entry of a top-level list of the JSON. Raises ValueError if it does not exist."""
        items = self.items(name)
        if not isinstance(index, int) or not 0 <= index < len(items):
            raise ValueError(f"it refers to {name}[{index}], which does not exist")
        return items[index]

    def buffer(self, index: int) -> bytes:
        """The bytes of a buffer. Raises ValueError if it is shorter than declared, OSError if its file is missing."""
        if index not in self._buffers:
            buffer = self.item("buffers", index)
            if "uri" in buffer:
                data = read_uri(self.folder, buffer["uri"])
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise ValueError(f"its buffers[{index}] has no data")
            if len(data) < buffer["byteLength"]:
                raise ValueError(f"truncated: buffers[{index}] has {len(data)} of {buffer['byteLength']} bytes")
            self._buffers[index] = data
        return self._buffers[index]

    def slice(self, view: dict[str, Any]) -> memoryview:
        """The bytes of a buffer view, or of an object with the same keys."""
        data = memoryview(self.buffer(view["buffer"]))
        start, length = view.get("byteOffset", 0), view["byteLength"]
        if min(start, length) < 0 or start + length > len(data):
            raise ValueError(f"a buffer view ends at byte {start + length} of {len(data)}")
        return data[start : start + length]

    @cached_property
    def required(self) -> list[str]:
        """The required extensions."""
        return [str(name) for name in self.items("extensionsRequired")]

    def _refuse_extensions(self, readable: Collection[str]) -> None:
        for name in self.required:
            if name not in readable and not name.startswith("KHR_materials_"):
                alternative = ALTERNATIVES.get(name, "export it without this extension, or as OBJ")
                raise ValueError(f"it requires the glTF extension {name}, which is not supported; {alternative}")


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """The JSON and the first binary chunk of a GLB."""
    if len(data) < 12:
        raise ValueError("truncated: a GLB header has 12 bytes")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise ValueError(f"its GLB version is {version}; convert it to 2")
    if length > len(data):
        raise ValueError(f"truncated: {len(data)} of {length} bytes")
    text, binary, at = None, None, 12
    while at + 8 <= len(data):
        size, kind = struct.unpack_from("<II", data, at)
        chunk, at = data[at + 8 : at + 8 + size], at + 8 + size
        if kind == _JSON and text is None:
            text = chunk
        elif kind == _BINARY and binary is None:
            binary = chunk
    if text is None:
        raise ValueError("the GLB has no JSON chunk")
    return text, binary
