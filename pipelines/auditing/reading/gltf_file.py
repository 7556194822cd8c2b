"""A reader of glTF 2.0 files: all objects of the scene, all attributes, and what is unused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steindreamer.representations.mesh.formats.gltf import (
    FAN,
    STRIP,
    TRIANGLES,
    Matrix,
    local_transform,
    placed_nodes,
    triangles,
)
from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.formats.gltf_materials import WRAPS, GltfMaterials, texture_transform
from steindreamer.representations.mesh.formats.neighbors import read_uri

from .asset_file import AssetFile, ImageFile, Material, Node, Part, Slot, TextureUse
from .gltf_unused import unused_items
from .limits import check_parts, checked_faces
from .roles import is_collider, level_of

IMAGE_EXTENSIONS = ("EXT_texture_webp", "EXT_texture_avif", "KHR_texture_basisu", "MSFT_texture_dds")
"""Extensions of a texture that name another image."""
PHYSICS = ("OMI_physics_body", "OMI_collider", "KHR_physics_rigid_bodies")
"""Extensions of a node that has a collider."""
MAX_SETS = 8
"""Number of texture coordinate sets that are read."""


def read_gltf_file(data: bytes, path: Path) -> AssetFile:
    """Read a .glb or .gltf file. Raises ValueError if it is broken, OSError if a buffer is missing."""
    return _Reader(GltfDocument(data, path.parent)).read(data, path)


class _Reader:
    def __init__(self, document: GltfDocument) -> None:
        self._document = document
        self._accessors = GltfAccessors(document)
        self._missing: list[str] = []
        self._primitives: dict[tuple[int, int], dict[str, Any] | None] = {}

    def read(self, data: bytes, path: Path) -> AssetFile:
        images = tuple(self._images())
        # An unreadable image is reported with its material.
        paints = GltfMaterials(self._document, self._accessors.view, lambda line: None)
        materials = tuple(self._material(index, paints) for index in range(len(self._document.items("materials"))))
        levels = self._levels()
        placed = placed_nodes(self._document)
        for index in levels:
            placed.update(placed_nodes(self._document, [index]) if index not in placed else {})
        parts = [part for index, world in placed.items() for part in self._parts(index, world, levels)]
        check_parts(parts)
        return AssetFile(
            path=path,
            format=path.suffix.lower()[1:],
            file_bytes=len(data) + self._side_bytes(),
            parts=tuple(parts),
            materials=materials,
            images=images,
            nodes=tuple(self._node(index) for index in placed),
            required=tuple(self._document.required),
            unused=tuple(unused_items(self._document.tree)),
            missing=tuple(dict.fromkeys(self._missing)),
        )

    def _levels(self) -> dict[int, int]:
        """Level of the nodes that the extension MSFT_lod names."""
        return {
            int(index): level
            for node in self._document.items("nodes")
            for level, index in enumerate(node.get("extensions", {}).get("MSFT_lod", {}).get("ids", []), 1)
        }

    def _node(self, index: int) -> Node:
        node = self._document.item("nodes", index)
        return Node(
            str(node.get("name", "")),
            local_transform(node),
            "mesh" in node,
            any(name in node.get("extensions", {}) for name in PHYSICS),
        )

    def _parts(self, index: int, world: Matrix, levels: dict[int, int]) -> Iterator[Part]:
        node = self._document.item("nodes", index)
        if "mesh" not in node:
            return
        mesh = self._document.item("meshes", node["mesh"])
        name, mesh_name = str(node.get("name", "")), str(mesh.get("name", ""))
        collider = is_collider(name, mesh_name)
        level = levels[index] if index in levels else level_of(name, mesh_name)
        for number in range(len(mesh["primitives"])):
            content = self._primitive(node["mesh"], number)
            if content is not None:
                yield Part(name, mesh_name, index, world=world, collider=collider, level=level, **content)

    def _primitive(self, mesh: int, number: int) -> dict[str, Any] | None:
        """Arguments of a `Part`, shared by all nodes with this mesh; None if it has no triangles."""
        if (mesh, number) not in self._primitives:
            self._primitives[mesh, number] = self._read_primitive(
                self._document.item("meshes", mesh)["primitives"][number]
            )
        return self._primitives[mesh, number]

    def _read_primitive(self, primitive: dict[str, Any]) -> dict[str, Any] | None:
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN) or "POSITION" not in primitive["attributes"]:
            self._missing.append("points, lines and primitives without positions are not checked")
            return None
        attributes, indices = self._accessors.attributes(primitive)
        positions = self._accessors.attribute(attributes, primitive, "POSITION", 3)
        assert positions is not None

        def attribute(name: str, width: int, *, normalized: bool = False) -> np.ndarray | None:
            values = self._accessors.attribute(attributes, primitive, name, width, normalized=normalized)
            if values is not None and len(values) != len(positions):
                raise ValueError(f"it has {len(values)} of {name} for {len(positions)} vertices")
            return values

        order = np.arange(len(positions)) if indices is None else indices
        material = primitive.get("material", -1)
        if material != -1:
            self._document.item("materials", material)
        sets = {n: attribute(f"TEXCOORD_{n}", 2) for n in range(MAX_SETS) if f"TEXCOORD_{n}" in attributes}
        return {
            "material": material,
            "positions": positions,
            "faces": checked_faces(
                triangles(order, TRIANGLES if isinstance(attributes["POSITION"], np.ndarray) else mode), len(positions)
            ),
            "normals": attribute("NORMAL", 3),
            "tangents": attribute("TANGENT", 4),
            "uvs": sets,
            "colors": attribute("COLOR_0", 3, normalized=True),
        }

    def _material(self, index: int, paints: GltfMaterials) -> Material:
        material = self._document.item("materials", index)
        surface = material.get("pbrMetallicRoughness", {})
        infos: dict[Slot, Any] = {
            "base_color": surface.get("baseColorTexture"),
            "metallic_roughness": surface.get("metallicRoughnessTexture"),
            "normal": material.get("normalTexture"),
            "occlusion": material.get("occlusionTexture"),
            "emissive": material.get("emissiveTexture"),
        }
        return Material(
            name=str(material.get("name", "")),
            paint=paints.material(index).paint,
            textures={slot: self._use(info) for slot, info in infos.items() if info is not None},
            metallic=float(surface.get("metallicFactor", 1.0)),
            roughness=float(surface.get("roughnessFactor", 1.0)),
            alpha=str(material.get("alphaMode", "OPAQUE")),
            double_sided=bool(material.get("doubleSided", False)),
        )

    def _use(self, info: dict[str, Any]) -> TextureUse:
        texture = self._document.item("textures", info["index"])
        extensions = texture.get("extensions", {})
        sources = [extensions[name]["source"] for name in IMAGE_EXTENSIONS if name in extensions]
        image = next(iter(sources), texture.get("source", -1))
        if image != -1:
            self._document.item("images", image)
        sampler = self._document.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap_u, wrap_v = (WRAPS[sampler.get(key, 10497)] for key in ("wrapS", "wrapT"))
        moved = info.get("extensions", {}).get("KHR_texture_transform", {})
        uv_set = int(moved.get("texCoord", info.get("texCoord", 0)))
        transform = texture_transform(moved) if moved else None
        if transform is not None and not all(map(math.isfinite, transform.reshape(-1))):
            raise ValueError("a texture transform is not finite")
        return TextureUse(image, uv_set, (wrap_u, wrap_v), transform)

    def _images(self) -> Iterator[ImageFile]:
        for index, image in enumerate(self._document.items("images")):
            name = str(image.get("name", "") or ("" if image.get("uri", "data:")[:5] == "data:" else image["uri"]))
            try:
                if "bufferView" in image:
                    data = bytes(self._accessors.view(image["bufferView"])[0])
                else:
                    data = read_uri(self._document.folder, image["uri"])
                yield ImageFile(name, data)
            except (ValueError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                self._missing.append(f"images[{index}] cannot be read ({reason})")
                yield ImageFile(name, b"", str(reason))

    def _side_bytes(self) -> int:
        """Size of the files beside the file."""
        total = 0
        for name in {
            item["uri"]
            for kind in ("buffers", "images")
            for item in self._document.items(kind)
            if not item.get("uri", "data:").startswith("data:")
        }:
            try:
                total += len(read_uri(self._document.folder, name))
            except (ValueError, OSError):
                continue  # reported where it is used
        return total
