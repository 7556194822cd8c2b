"""Finishing that keeps the triangles, texture coordinates, materials and names of a file, as a glTF document."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from steindreamer.representations.files.regular import read_regular_file
from steindreamer.representations.mesh.file import read_mesh
from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.formats.gltf_packing import in_one_buffer
from steindreamer.representations.mesh.painted import PaintedMesh

from ..export.gltf_builder import GltfBuilder
from ..export.painted_glb import painted_glb
from .drop_levels import drop_levels
from .lightmap import lightmap_uvs, overlaps
from .lod_extension import link_levels
from .lods import collapse
from .source import Source

logger = logging.getLogger(__name__)
_NORMAL_WEIGHT, _UV_WEIGHT = 0.5, 0.5
_OVERLAP = 0.005
"""Fraction of overlapping texels above which charts cannot be used for a lightmap."""


class KeptDocument:
    """A glTF document to which levels of detail, lightmap coordinates and nodes are added; its own levels of detail
    (MSFT_lod) are dropped, except for the first.

    Args:
        source: the file; other formats than glTF become a glTF with the same triangles and materials.
        crease_angle: angle in degrees above which edges of a file without normals are sharp.

    Raises:
        ValueError: The file is broken.
    """

    def __init__(self, source: Source, crease_angle: float) -> None:
        if source.path.suffix.lower() in (".glb", ".gltf"):
            document = GltfDocument(read_regular_file(source.path), source.path.parent)
            self._tree, self._binary = in_one_buffer(document)
            self._binary = drop_levels(self._tree, self._binary)
        else:
            builder = painted_glb(source.mesh, source.placement, source.path.stem, crease_angle)
            document = GltfDocument(builder.to_bytes(), source.path.parent)
            self._tree, self._binary = in_one_buffer(document)
        self._accessors = GltfAccessors(GltfDocument(self._builder().to_bytes(), source.path.parent))
        self._meshes = [index for index, mesh in enumerate(self._tree.get("meshes", [])) if _has_triangles(mesh)]
        self._lightmaps: dict[int, list[np.ndarray]] = {}

    def names(self) -> list[str]:
        """Names of the nodes that show meshes."""
        return [str(self._tree["nodes"][index].get("name", f"node_{index}")) for index in self.mesh_nodes()]

    def add_lightmap(self, size: int) -> float | None:
        """Add a second set of texture coordinates to the meshes that have none.

        Returns the largest fraction of overlapping texels; None if no mesh gets one.
        """
        largest = None
        for index in self._meshes:
            primitives = self._tree["meshes"][index]["primitives"]
            if any("TEXCOORD_1" in each["attributes"] or "TEXCOORD_0" not in each["attributes"] for each in primitives):
                continue
            vertices, _, faces, starts = self._joined(index)
            uvs = np.concatenate([self._values(each, "TEXCOORD_0", 2) for each in primitives])
            try:
                flat = lightmap_uvs(vertices, uvs, faces, size)
            except ValueError as error:
                logger.warning(f"no lightmap coordinates: {error}")
                continue
            if (covered := overlaps(flat, faces, 1024)) > _OVERLAP:
                logger.warning(f"no lightmap coordinates: {covered:.1%} of the atlas is used several times")
                continue
            largest = max(largest or 0.0, covered)
            self._lightmaps[index] = np.split(flat, starts[1:])
        return largest

    def levels(self, ratios: Sequence[float]) -> list[dict[int, list[np.ndarray]]]:
        """The faces of every primitive, by mesh, for each ratio of triangles."""
        out: list[dict[int, list[np.ndarray]]] = [{} for _ in ratios]
        for index in self._meshes:
            vertices, attributes, faces, starts = self._joined(index)
            ends = [*starts[1:], len(vertices)]
            for level, chosen in enumerate(collapse(vertices, attributes, faces, ratios)):
                owner = np.searchsorted(starts, chosen[:, 0], side="right") - 1
                out[level][index] = [chosen[owner == part] - starts[part] for part in range(len(ends))]
        return out

    def with_levels(self, levels: Sequence[dict[int, list[np.ndarray]]], coverage: Sequence[float]) -> GltfBuilder:
        """The document with levels of detail beside each node that shows a mesh (MSFT_lod)."""
        builder = self._builder()
        self._write_lightmaps(builder)
        meshes: dict[tuple[int, int], int] = {}
        for node in self.mesh_nodes():
            shown = builder.tree["nodes"][node]
            nodes = [node]
            for level, faces in enumerate(levels[1:], 1):
                index = shown["mesh"]
                title = shown.get("name", f"node_{node}")
                if (index, level) not in meshes:
                    meshes[index, level] = self._add_mesh(builder, index, faces[index], f"{title}_LOD{level}")
                coarse = {key: value for key, value in shown.items() if key not in ("children", "extras", "extensions")}
                nodes.append(
                    builder.add("nodes", {**coarse, "name": f"{title}_LOD{level}", "mesh": meshes[index, level]})
                )
            if len(nodes) > 1:
                link_levels(builder, nodes, coverage)
        return builder

    def alone(self, faces: dict[int, list[np.ndarray]]) -> GltfBuilder:
        """A document with one level only, without skins and animations."""
        tree = {
            key: copy.deepcopy(value)
            for key, value in self._tree.items()
            if key not in ("accessors", "bufferViews", "buffers", "meshes", "skins", "animations", "images")
        }
        builder = GltfBuilder(tree)
        for image in self._tree.get("images", []):
            raw = bytes(self._accessors.view(image["bufferView"])[0])
            builder.add("images", {**image, "bufferView": builder.view(raw)})
        for node in tree.get("nodes", []):
            node.pop("skin", None)
            node.pop("weights", None)
        for index, mesh in enumerate(self._tree.get("meshes", [])):
            if index in faces:
                self._add_mesh(builder, index, faces[index], mesh.get("name"))
            else:
                # Lines and points: an empty place keeps the numbers of the others.
                builder.add("meshes", {"primitives": []})
        for node in tree.get("nodes", []):
            if node.get("mesh") not in (None, *faces):
                del node["mesh"]
        if any(not mesh["primitives"] for mesh in builder.tree.get("meshes", [])):
            _drop_empty_meshes(builder.tree)
        return builder

    def _builder(self) -> GltfBuilder:
        return GltfBuilder(copy.deepcopy(self._tree), self._binary)

    def mesh_nodes(self) -> list[int]:
        """Nodes that show a mesh of triangles."""
        nodes = self._tree.get("nodes", [])
        return [index for index, node in enumerate(nodes) if node.get("mesh") in self._meshes]

    def _joined(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Positions, weighted attributes and faces of all primitives of a mesh, and the first vertex of each."""
        primitives = self._tree["meshes"][index]["primitives"]
        vertices = [self._values(each, "POSITION", 3) for each in primitives]
        starts = np.cumsum([0, *(len(each) for each in vertices[:-1])])
        faces, rows = [], []
        for primitive, points, start in zip(primitives, vertices, starts, strict=True):
            _, indices = self._accessors.attributes(primitive)
            order = np.arange(len(points)) if indices is None else indices
            faces.append(order[: len(order) // 3 * 3].reshape(-1, 3) + start)
            given = primitive["attributes"]
            normals = self._values(primitive, "NORMAL", 3) if "NORMAL" in given else np.zeros((len(points), 3))
            uvs = self._values(primitive, "TEXCOORD_0", 2) if "TEXCOORD_0" in given else np.zeros((len(points), 2))
            rows.append(np.concatenate([normals * _NORMAL_WEIGHT, uvs * _UV_WEIGHT], 1))
        return np.concatenate(vertices).astype(np.float32), np.concatenate(rows), np.concatenate(faces), starts

    def _values(self, primitive: dict[str, Any], name: str, width: int) -> np.ndarray:
        attributes, _ = self._accessors.attributes(primitive)
        values = self._accessors.attribute(attributes, primitive, name, width)
        assert values is not None
        return values

    def _write_lightmaps(self, builder: GltfBuilder) -> None:
        for index, parts in self._lightmaps.items():
            for primitive, uvs in zip(builder.tree["meshes"][index]["primitives"], parts, strict=True):
                primitive["attributes"]["TEXCOORD_1"] = builder.attribute(uvs)

    def _add_mesh(self, builder: GltfBuilder, index: int, faces: list[np.ndarray], name: str | None) -> int:
        """Append a mesh with other faces, without the vertices that they do not use. Returns its index."""
        primitives = []
        for number, (primitive, chosen) in enumerate(
            zip(self._tree["meshes"][index]["primitives"], faces, strict=True)
        ):
            if len(chosen) == 0:
                continue
            used, corners = np.unique(chosen, return_inverse=True)
            given, _ = self._accessors.attributes(primitive)
            attributes = {
                key: self._add_rows(builder, value, primitive["attributes"].get(key), used, bounds=key == "POSITION")
                for key, value in given.items()
            }
            if index in self._lightmaps:
                attributes["TEXCOORD_1"] = builder.attribute(self._lightmaps[index][number][used])
            out = {key: value for key, value in primitive.items() if key not in ("targets", "extensions")}
            primitives.append(
                out | {"attributes": attributes, "indices": builder.indices(corners.reshape(-1, 3), len(used))}
            )
        return builder.add("meshes", {"primitives": primitives} | ({} if name is None else {"name": name}))

    def _add_rows(self, builder: GltfBuilder, given: Any, accessor: Any, rows: np.ndarray, *, bounds: bool) -> int:
        """Append some rows of a vertex attribute in the type of the file. Returns the index of the accessor."""
        values = given if isinstance(given, np.ndarray) else self._accessors.values(given)
        described = self._tree["accessors"][accessor if isinstance(given, np.ndarray) else given]
        chosen = np.ascontiguousarray(values[rows])
        width = chosen.shape[1] * chosen.itemsize
        padded = np.zeros((len(chosen), -(-width // 4) * 4), np.uint8)
        padded[:, :width] = chosen.view(np.uint8).reshape(len(chosen), width)
        view = builder.view(padded.tobytes(), 34962)
        if padded.shape[1] != width:
            builder.tree["bufferViews"][view]["byteStride"] = padded.shape[1]
        out = {key: described[key] for key in ("componentType", "type", "normalized") if key in described}
        out |= {"bufferView": view, "count": len(chosen)}
        if bounds:
            out |= {"min": chosen.min(0).tolist(), "max": chosen.max(0).tolist()}
        return builder.add("accessors", out)


def _has_triangles(mesh: dict[str, Any]) -> bool:
    return all(each.get("mode", 4) == 4 and "POSITION" in each["attributes"] for each in mesh["primitives"])


def _drop_empty_meshes(tree: dict[str, Any]) -> None:
    kept = [index for index, mesh in enumerate(tree["meshes"]) if mesh["primitives"]]
    number = {old: new for new, old in enumerate(kept)}
    tree["meshes"] = [tree["meshes"][index] for index in kept]
    for node in tree.get("nodes", []):
        if "mesh" in node:
            if node["mesh"] in number:
                node["mesh"] = number[node["mesh"]]
            else:
                del node["mesh"]


def read_again(builder: GltfBuilder, source: Source) -> PaintedMesh:
    """The mesh of a document that has the place of the source, in the ball of the source."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "level.glb"
        builder.write(path)
        mesh = read_mesh(path)
    return replace(mesh, vertices=source.placement.apply(mesh.vertices.double()).float())
