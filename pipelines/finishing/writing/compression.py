"""Compression of the arrays of a glTF document: quantization, meshopt and Draco."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from steindreamer.optional import load
from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_compression import INSTALL as DECODERS
from steindreamer.representations.mesh.formats.gltf_compression import decode_draco
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument

from ...export.gltf_builder import GltfBuilder
from .views import image_bytes

QUANTIZATION, MESHOPT, DRACO = "KHR_mesh_quantization", "EXT_meshopt_compression", "KHR_draco_mesh_compression"
EXTENSIONS = {"quantize": (QUANTIZATION,), "meshopt": (QUANTIZATION, MESHOPT), "draco": (DRACO,)}
"""The extensions that readers of a file need, by method."""
PACKAGES = {"meshopt": ("meshoptimizer", "pip install 'steindreamer[finish]'"), "draco": ("DracoPy", DECODERS)}
"""The package that a method needs, and how to install it."""
DRACO_BITS = {"POSITION": 14, "NORMAL": 10, "TEXCOORD_0": 14}
"""Bits of the numbers that Draco quantizes, relative to the extent of the mesh; others are stored exactly."""
_BYTE, _SHORT, _USHORT, _UINT, _FLOAT = 5120, 5122, 5123, 5125, 5126
_STORED: dict[str, tuple[int, str, float]] = {
    "POSITION": (_SHORT, "<i2", 32767),
    "NORMAL": (_BYTE, "<i1", 127),
    "TANGENT": (_BYTE, "<i1", 127),
    "TEXCOORD_0": (_USHORT, "<u2", 65535),
    "TEXCOORD_1": (_USHORT, "<u2", 65535),
}
"""Component type and largest value of each quantized attribute."""
Arrays = dict[str, np.ndarray]
Faces = Int[np.ndarray, "f 3"]


def compressed(builder: GltfBuilder, method: Literal["quantize", "meshopt", "draco"]) -> GltfBuilder:
    """The document with compressed arrays, which its readers then need an extension for.

    Raises ValueError if a package is missing.

    Args:
        builder: a document whose nodes have no transforms, and whose primitives are indexed triangles with floating
            point attributes. Meshes that no node shows, which are shapes of a collider, stay as they are.
        method: `quantize`: 16-bit positions and texture coordinates, 8-bit normals and tangents
            (KHR_mesh_quantization); `meshopt`: the same, compressed without loss (EXT_meshopt_compression); `draco`:
            KHR_draco_mesh_compression, see `DRACO_BITS`.
    """
    read = GltfAccessors(GltfDocument(builder.to_bytes(), Path()))
    dropped = ("accessors", "bufferViews", "buffers")
    out = GltfBuilder({key: copy.deepcopy(value) for key, value in builder.tree.items() if key not in dropped})
    for index, image in enumerate(out.tree.get("images", [])):
        image["bufferView"] = out.view(image_bytes(builder, index))
    shown = {node["mesh"] for node in out.tree["nodes"] if "mesh" in node}
    for index, mesh in enumerate(out.tree["meshes"]):
        if index not in shown:
            mesh["primitives"] = [_plain(out, primitive, read) for primitive in mesh["primitives"]]
    primitives = [primitive for index in sorted(shown) for primitive in out.tree["meshes"][index]["primitives"]]
    arrays = [{name: read.values(at) for name, at in each["attributes"].items()} for each in primitives]
    scale = max(float(np.abs(each["POSITION"]).max()) for each in arrays)
    store = _draco if method == "draco" else _quantized(out, scale, _meshopt if method == "meshopt" else None)
    for primitive, values in zip(primitives, arrays, strict=True):
        primitive |= store(out, values, read.integers(primitive["indices"]).reshape(-1, 3))
    if method != "draco":
        for node in out.tree["nodes"]:
            if "mesh" in node:
                node["scale"] = [scale] * 3
    for name in EXTENSIONS[method]:
        out.use_extension(name, required=True)
    return out


def _plain(builder: GltfBuilder, primitive: dict[str, Any], read: GltfAccessors) -> dict[str, Any]:
    """A primitive with its arrays as they are."""
    arrays = {name: read.values(at) for name, at in primitive["attributes"].items()}
    return {
        "attributes": {name: builder.attribute(each, bounds=name == "POSITION") for name, each in arrays.items()},
        "indices": builder.indices(read.integers(primitive["indices"]).reshape(-1, 3), len(arrays["POSITION"])),
    }


Compressor = Callable[[GltfBuilder, bytes, int, int, str], int]
"""Stores bytes as a view, given the number of elements, their stride and `ATTRIBUTES` or `TRIANGLES`."""


def _quantized(
    builder: GltfBuilder, scale: float, compressor: Compressor | None
) -> Callable[[GltfBuilder, Arrays, Faces], dict[str, Any]]:
    """Storage of primitives whose nodes are scaled by `scale`: the origin, which is the pivot, stays where it is."""

    def add(data: bytes, count: int, stride: int, mode: str) -> int:
        if compressor is not None:
            return compressor(builder, data, count, stride, mode)
        if mode == "TRIANGLES":
            return builder.view(data, 34963)
        view = builder.view(data, 34962)
        builder.tree["bufferViews"][view]["byteStride"] = stride
        return view

    def store(_: GltfBuilder, arrays: Arrays, faces: Faces) -> dict[str, Any]:
        if compressor is not None:
            arrays, faces = _reordered(arrays, faces)
        attributes = {}
        for name, values in arrays.items():
            component, kind, largest = _STORED[name]
            whole = np.round(values / scale * largest if name == "POSITION" else values * largest).astype(kind)
            stride = -(-whole.itemsize * whole.shape[1] // 4) * 4
            padded = np.zeros((len(whole), stride // whole.itemsize), kind)
            padded[:, : whole.shape[1]] = whole
            accessor = {
                "bufferView": add(padded.tobytes(), len(padded), stride, "ATTRIBUTES"),
                "componentType": component,
                "normalized": True,
                "count": len(whole),
                "type": f"VEC{whole.shape[1]}",
            }
            if name == "POSITION":
                accessor |= {"min": whole.min(0).tolist(), "max": whole.max(0).tolist()}
            attributes[name] = builder.add("accessors", accessor)
        small = len(arrays["POSITION"]) < 65_535
        flat = faces.reshape(-1).astype("<u2" if small else "<u4")
        indices = builder.add(
            "accessors",
            {
                "bufferView": add(flat.tobytes(), len(flat), flat.itemsize, "TRIANGLES"),
                "componentType": _USHORT if small else _UINT,
                "count": len(flat),
                "type": "SCALAR",
            },
        )
        return {"attributes": attributes, "indices": indices}

    return store


def _reordered(arrays: Arrays, faces: Faces) -> tuple[Arrays, Faces]:
    """Triangles in the order of a vertex cache, and vertices in that of the triangles, which compresses better."""
    library = load(*PACKAGES["meshopt"])
    flat, count = np.ascontiguousarray(faces.reshape(-1), np.uint32), len(arrays["POSITION"])
    cached = np.zeros_like(flat)
    library.optimize_vertex_cache(cached, flat, len(flat), count)
    used, first = np.unique(cached, return_index=True)
    order = used[np.argsort(first)]
    place = np.zeros(count, np.int64)
    place[order] = np.arange(len(order))
    return {name: values[order] for name, values in arrays.items()}, place[cached].reshape(-1, 3)


def _meshopt(builder: GltfBuilder, data: bytes, count: int, stride: int, mode: str) -> int:
    """Store bytes compressed; the uncompressed view is a part of a buffer that does not exist."""
    library = load(*PACKAGES["meshopt"])
    if mode == "ATTRIBUTES":
        library.encode_vertex_version(0)  # the only one of EXT_meshopt_compression
        packed = library.encode_vertex_buffer(np.frombuffer(data, np.uint8).reshape(count, stride), count, stride)
    else:
        library.encode_index_version(1)
        packed = library.encode_index_buffer(np.frombuffer(data, f"<u{stride}"), count)
    view = builder.view(packed)
    stored = builder.tree["bufferViews"][view]
    described = {"buffer": 1, "byteOffset": builder.fallback_bytes, "byteLength": len(data)}
    builder.fallback_bytes += len(data) + -len(data) % 4
    if mode == "ATTRIBUTES":
        described |= {"byteStride": stride, "target": 34962}
    else:
        described |= {"target": 34963}
    extension = {**stored, "byteStride": stride, "mode": mode, "count": count}
    builder.tree["bufferViews"][view] = {**described, "extensions": {MESHOPT: extension}}
    return view


def _draco(builder: GltfBuilder, arrays: Arrays, faces: Faces) -> dict[str, Any]:
    """Store a primitive as Draco data; its accessors describe what a decoder returns."""
    library = load(*PACKAGES["draco"])
    generic = [name for name in arrays if name not in DRACO_BITS]
    data = library.encode(
        arrays["POSITION"],
        faces.astype(np.uint32),
        quantization_bits=DRACO_BITS["POSITION"],
        compression_level=7,
        normals=arrays["NORMAL"].astype(np.float64),
        normal_quantization_bits=DRACO_BITS["NORMAL"],
        tex_coord=arrays["TEXCOORD_0"].astype(np.float64) if "TEXCOORD_0" in arrays else None,
        tex_coord_quantization_bits=DRACO_BITS["TEXCOORD_0"],
        generic_attributes={number: np.ascontiguousarray(arrays[name]) for number, name in enumerate(generic)} or None,
    )
    kinds = {0: "POSITION", 1: "NORMAL", 3: "TEXCOORD_0"}
    ids = {
        kinds[each["attribute_type"]] if each["attribute_type"] in kinds else generic[each["unique_id"]]: each[
            "unique_id"
        ]
        for each in library.decode(data).attributes
    }
    decoded, triangles = decode_draco(data, ids)
    count = len(decoded["POSITION"])
    attributes = {}
    for name, values in decoded.items():
        accessor = {"componentType": _FLOAT, "count": count, "type": f"VEC{values.shape[1]}"}
        if name == "POSITION":
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        attributes[name] = builder.add("accessors", accessor)
    component = _USHORT if count < 65_535 else _UINT
    indices = {"componentType": component, "count": triangles.size, "type": "SCALAR"}
    extension = {"bufferView": builder.view(data), "attributes": ids}
    return {
        "attributes": attributes,
        "indices": builder.add("accessors", indices),
        "extensions": {DRACO: extension},
    }
