"""The arrays of a glTF file: accessors of any component type, interleaved, normalized, sparse or compressed."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .gltf_compression import decode_draco, decode_meshopt
from .gltf_document import GltfDocument
from .parts import MAX_ELEMENTS

COMPONENTS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
DRACO = "KHR_draco_mesh_compression"


class GltfAccessors:
    """Reads the accessors of a document. All methods raise ValueError for inconsistent data."""

    def __init__(self, document: GltfDocument) -> None:
        self._document = document
        self._views: dict[int, tuple[memoryview, int]] = {}

    def numbers(self, index: int, width: int, *, normalized: bool = False) -> Float[np.ndarray, "n width"]:
        """Read an accessor as float64.

        Args:
            index: Index of the accessor.
            width: Number of components to return; the accessor must have at least so many.
            normalized: Whether to map integers to [0, 1] or [-1, 1] even if the accessor is not marked as normalized.
        """
        accessor = self._document.item("accessors", index)
        return self._as_numbers(accessor, self._raw(accessor), width, normalized)

    def values(self, index: int) -> np.ndarray:
        """The values of an accessor, `[count, components]`, in the type of the file."""
        return self._raw(self._document.item("accessors", index))

    def integers(self, index: int, width: int = 1) -> Int[np.ndarray, "n width"]:
        """Read an accessor of integers with `width` components."""
        values = self._raw(self._document.item("accessors", index))
        if values.dtype.kind not in "iu" or values.shape[1] != width:
            raise ValueError(f"accessors[{index}] does not have {width} integer components")
        return values.astype(np.int64)

    def attributes(self, primitive: dict[str, Any]) -> tuple[dict[str, Any], Int[np.ndarray, " i"] | None]:
        """The attributes of a primitive (accessor index or decoded array by name), for `attribute`, and its indices."""
        extension = primitive.get("extensions", {}).get(DRACO)
        indices = primitive.get("indices")
        if extension is None or not self._needs_draco(primitive):
            return dict(primitive["attributes"]), None if indices is None else self.integers(indices)[:, 0]
        view, _ = self.view(extension["bufferView"])
        decoded, faces = decode_draco(bytes(view), extension["attributes"])
        # Attributes that the extension does not name are stored uncompressed.
        return {**primitive["attributes"], **decoded}, faces.reshape(-1)

    def attribute(
        self, attributes: dict[str, Any], primitive: dict[str, Any], name: str, width: int, *, normalized: bool = False
    ) -> Float[np.ndarray, "n width"] | None:
        """Read one of the attributes returned by `attributes`, see `numbers`; None if it is missing."""
        if name not in attributes:
            return None
        given = attributes[name]
        if isinstance(given, np.ndarray):  # decoded, but described by its accessor
            accessor = self._document.item("accessors", primitive["attributes"][name])
            return self._as_numbers(accessor, given, width, normalized)
        return self.numbers(given, width, normalized=normalized)

    def view(self, index: int) -> tuple[memoryview, int]:
        """Decompressed bytes of a buffer view, and its stride in bytes (0: tightly packed)."""
        if index not in self._views:
            view = self._document.item("bufferViews", index)
            packed = next((view["extensions"][name] for name in MESHOPT if name in view.get("extensions", {})), None)
            if packed is not None:
                data = decode_meshopt(bytes(self._document.slice(packed)), packed)
                self._views[index] = memoryview(data), packed["byteStride"]
            else:
                self._views[index] = self._document.slice(view), view.get("byteStride", 0)
        return self._views[index]

    def _needs_draco(self, primitive: dict[str, Any]) -> bool:
        """Whether the primitive is stored only in compressed form."""
        position = self._document.item("accessors", primitive["attributes"]["POSITION"])
        return DRACO in self._document.required or "bufferView" not in position

    def _as_numbers(
        self, accessor: dict[str, Any], values: np.ndarray, width: int, normalized: bool
    ) -> Float[np.ndarray, "n width"]:
        if values.shape[1] < width:
            raise ValueError(f"an attribute has {values.shape[1]} components; {width} are needed")
        numbers = values[:, :width].astype(np.float64)
        if values.dtype.kind in "iu" and (normalized or accessor.get("normalized", False)):
            numbers = (numbers / np.iinfo(values.dtype).max).clip(min=-1)
        return numbers

    def _raw(self, accessor: dict[str, Any]) -> np.ndarray:
        """Values of an accessor, [count, components], in the type of the file."""
        count, width = accessor["count"], COMPONENTS[accessor["type"]]
        if not isinstance(count, int) or not 0 <= count <= MAX_ELEMENTS:
            raise ValueError(f"an accessor has {count} elements; at most {MAX_ELEMENTS} are read")
        kind = _kind(accessor)
        if "bufferView" in accessor:
            values = self._cut(accessor["bufferView"], accessor.get("byteOffset", 0), kind, count, width)
        else:
            values = np.zeros((count, width), kind)
        if "sparse" not in accessor:
            return values
        sparse, values = accessor["sparse"], values.copy()
        where = self._sparse(sparse["indices"], _kind(sparse["indices"]), sparse["count"], 1)[:, 0].astype(np.int64)
        if len(where) and not 0 <= int(where.min()) <= int(where.max()) < count:
            raise ValueError("a sparse accessor replaces elements that do not exist")
        values[where] = self._sparse(sparse["values"], kind, sparse["count"], width)
        return values

    def _sparse(self, part: dict[str, Any], kind: np.dtype, count: int, width: int) -> np.ndarray:
        return self._cut(part["bufferView"], part.get("byteOffset", 0), kind, count, width)

    def _cut(self, view: int, offset: int, kind: np.dtype, count: int, width: int) -> np.ndarray:
        data, stride = self.view(view)
        size = kind.itemsize * width
        stride = stride or size
        if count == 0:
            return np.zeros((0, width), kind)
        end = offset + (count - 1) * stride + size
        if min(offset, count) < 0 or stride < size or end > len(data):
            raise ValueError(f"an accessor needs {end} bytes of bufferViews[{view}], which has {len(data)}")
        strides = (stride, kind.itemsize)
        return np.ndarray((count, width), kind, data, offset, strides)


def _kind(accessor: dict[str, Any]) -> np.dtype:
    if accessor["componentType"] not in TYPES:
        raise ValueError(f"an accessor has the unknown component type {accessor['componentType']}")
    return np.dtype(TYPES[accessor["componentType"]])
