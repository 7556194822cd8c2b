"""Decoding of compressed glTF arrays with DracoPy and meshoptimizer, which are optional packages."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Int

from steindreamer.optional import load

from .parts import MAX_ELEMENTS

INSTALL = "pip install 'steindreamer[meshes]'"
FILTERS = {"OCTAHEDRAL": "decode_filter_oct", "QUATERNION": "decode_filter_quat", "EXPONENTIAL": "decode_filter_exp"}


def decode_draco(data: bytes, attributes: dict[str, int]) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "f 3"]]:
    """Decode KHR_draco_mesh_compression to attributes by name, and faces.

    Args:
        data: The compressed bytes.
        attributes: Draco ids of the attributes, by name.

    Raises:
        ValueError: The package DracoPy is not installed, or the data is broken.
    """
    library = load("DracoPy", INSTALL)
    try:
        mesh = library.decode(data)
        faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        found = {attribute["unique_id"]: attribute["data"] for attribute in mesh.attributes}
    except Exception as error:  # DracoPy raises several exception types of its own
        raise ValueError(f"its Draco data (KHR_draco_mesh_compression) cannot be decoded: {error}") from None
    missing = [name for name, number in attributes.items() if number not in found]
    if missing:
        raise ValueError(f"its Draco data has no {', '.join(missing)}")
    return {name: np.asarray(found[number]) for name, number in attributes.items()}, faces


def decode_meshopt(data: bytes, view: dict[str, Any]) -> bytes:
    """Decode EXT_meshopt_compression to the bytes of a buffer view.

    Args:
        data: The compressed bytes.
        view: The extension object of the buffer view.

    Raises:
        ValueError: The package meshoptimizer is not installed, or the data is broken.
    """
    library = load("meshoptimizer", INSTALL)
    count, stride, mode = view["count"], view["byteStride"], view["mode"]
    if not 0 <= count <= MAX_ELEMENTS:
        raise ValueError(f"a compressed buffer view has {count} elements; at most {MAX_ELEMENTS} are read")
    try:
        if mode == "ATTRIBUTES":
            decoded = library.decode_vertex_buffer(count, stride, data, dtype=np.dtype((np.void, stride)))
            return _filtered(library, decoded, view).tobytes()
        decode = {"TRIANGLES": library.decode_index_buffer, "INDICES": library.decode_index_sequence}[mode]
        return decode(count, stride, data).tobytes()[: count * stride]
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"its meshopt data (EXT_meshopt_compression) cannot be decoded: {error}") from None


def _filtered(library: ModuleType, decoded: np.ndarray, view: dict[str, Any]) -> np.ndarray:
    name = view.get("filter", "NONE")
    return decoded if name == "NONE" else getattr(library, FILTERS[name])(decoded, view["count"], view["byteStride"])
