"""A glTF 2.0 file under construction: its JSON tree and its binary chunk."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from steindreamer.representations.mesh.formats.gltf_packing import append_view, glb

from ..files import write_atomically

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
GENERATOR = "steindreamer"
_SAMPLER = {
    "magFilter": _LINEAR,
    "minFilter": _LINEAR_MIPMAP_LINEAR,
    "wrapS": _CLAMP_TO_EDGE,
    "wrapT": _CLAMP_TO_EDGE,
}
"""Sampler of textures whose charts are all inside the image."""


class GltfBuilder:
    """A file to which meshes, materials and nodes are added.

    Args:
        tree: JSON of a file to extend, with at most one buffer, `binary`; it is changed. None: a new file.
        binary: content of its buffer.
    """

    def __init__(self, tree: dict[str, Any] | None = None, binary: bytes = b"") -> None:
        self.tree: dict[str, Any] = {"asset": {"version": "2.0", "generator": GENERATOR}} if tree is None else tree
        self._binary = bytearray(binary)
        self.fallback_bytes = 0
        """Size of a second buffer without content, which the uncompressed views of compressed ones are parts of."""

    @property
    def binary(self) -> bytes:
        """The content of the buffer."""
        return bytes(self._binary)

    def add(self, kind: str, item: Mapping[str, Any]) -> int:
        """Append to a top-level list of the JSON, such as `nodes`. Returns the index."""
        items = self.tree.setdefault(kind, [])
        items.append(dict(item))
        return len(items) - 1

    def view(self, raw: bytes, target: int | None = None) -> int:
        """Append bytes as a buffer view, aligned to 4 bytes. Returns its index."""
        index = append_view(self.tree, self._binary, raw)
        if target is not None:
            self.tree["bufferViews"][index]["target"] = target
        return index

    def attribute(self, values: Float[np.ndarray, "n c"], *, bounds: bool = False) -> int:
        """Append a vertex attribute as 32-bit numbers. Returns the index of its accessor.

        Args:
            values: the values.
            bounds: whether to store the smallest and largest values, as positions require.
        """
        values = np.ascontiguousarray(values, dtype="<f4")
        accessor: dict[str, object] = {
            "bufferView": self.view(values.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        return self.add("accessors", accessor)

    def indices(self, faces: Int[np.ndarray, "f 3"], vertices: int) -> int:
        """Append vertex indices, 16-bit if possible. Returns the index of their accessor."""
        small = vertices < 65_535  # 65535 is the primitive restart index on some hardware
        raw = faces.astype("<u2" if small else "<u4").tobytes()
        return self.add(
            "accessors",
            {
                "bufferView": self.view(raw, _ELEMENT_ARRAY_BUFFER),
                "componentType": _UINT16 if small else _UINT32,
                "count": faces.size,
                "type": "SCALAR",
            },
        )

    def texture(self, name: str, image: UInt8[np.ndarray, "h w c"], sampler: Mapping[str, Any] = _SAMPLER) -> int:
        """Append an image as a PNG, with a texture. Returns the index of the texture."""
        return self.encoded_texture(name, png(image), "image/png", sampler)

    def encoded_texture(self, name: str, data: bytes, mime_type: str, sampler: Mapping[str, Any] = _SAMPLER) -> int:
        """Append an image file, with a texture. Returns the index of the texture."""
        image = self.add("images", {"name": name, "mimeType": mime_type, "bufferView": self.view(data)})
        samplers = self.tree.setdefault("samplers", [])
        if dict(sampler) not in samplers:
            samplers.append(dict(sampler))
        return self.add("textures", {"source": image, "sampler": samplers.index(dict(sampler))})

    def use_extension(self, name: str, *, required: bool = False) -> None:
        """List an extension as used, or as required by the readers of the file."""
        for key in ("extensionsUsed", "extensionsRequired") if required else ("extensionsUsed",):
            names = self.tree.setdefault(key, [])
            if name not in names:
                names.append(name)

    def finished_tree(self) -> dict[str, Any]:
        """The JSON with the sizes of the buffers."""
        buffers: list[dict[str, Any]] = [{"byteLength": len(self._binary)}]
        if self.fallback_bytes:
            fallback = {"EXT_meshopt_compression": {"fallback": True}}
            buffers.append({"byteLength": self.fallback_bytes, "extensions": fallback})
        if self._binary:
            self.tree["buffers"] = buffers
        return self.tree

    def to_bytes(self) -> bytes:
        """The content of a .glb file."""
        return glb(self.finished_tree(), self.binary)

    def write(self, path: str | Path) -> None:
        """Write a .glb file atomically; its folder is created."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self.to_bytes())


def png(image: UInt8[np.ndarray, "h w *c"]) -> bytes:
    """An image as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=5)
    return buffer.getvalue()
