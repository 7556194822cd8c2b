"""A reader for glTF 2.0 (.glb and .gltf): the default scene with its base colors, without animation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..painted import Paint, PartOrigin
from .gltf_accessors import GltfAccessors
from .gltf_document import ALTERNATIVES, GltfDocument
from .gltf_materials import GltfMaterial, GltfMaterials
from .parts import MAX_ELEMENTS, MAX_FACES, MeshPart, MeshParts, Warn

TRIANGLES, STRIP, FAN = 4, 5, 6
INSTANCES = "EXT_mesh_gpu_instancing"
GAUSSIANS = "KHR_gaussian_splatting"
Matrix = Float[np.ndarray, "4 4"]
_NO_MATERIAL = Paint((0.21404114, 0.21404114, 0.21404114))
"""`GRAY` in linear RGB."""


def read_gltf(data: bytes, folder: Path, warn: Warn, *, maps: bool = False) -> MeshParts:
    """Read a glTF file; missing or broken images only cause warnings.

    Args:
        data: Content of the file.
        folder: Folder of the files to which it refers.
        warn: Logs warnings.
        maps: Whether to read normals, the materials besides their color, and texture coordinates without a texture.

    Raises:
        ValueError: The file is broken or uses unsupported features.
        OSError: A buffer is missing.
    """
    return MeshParts(list(_GltfReader(GltfDocument(data, folder), warn, maps).parts()), linear=True)


class _GltfReader:
    def __init__(self, document: GltfDocument, warn: Warn, maps: bool) -> None:
        self._document = document
        self._accessors = GltfAccessors(document)
        self._materials = GltfMaterials(document, self._accessors.view, warn, maps)
        self._maps = maps
        self._warn = warn
        self._warned: set[str] = set()

    def parts(self) -> Iterator[MeshPart]:
        placed, faces, vertices = placed_nodes(self._document), 0, 0
        for index, world in placed.items():
            node = self._document.items("nodes")[index]
            if "mesh" not in node:
                continue
            mesh = self._document.item("meshes", node["mesh"])
            weights = node.get("weights", mesh.get("weights", []))
            joints = self._joints(node["skin"], placed) if "skin" in node else None
            for primitive in mesh["primitives"]:
                origin = self._origin(node, mesh, primitive)
                for part in self._primitive(primitive, weights, joints, self._instances(node, world)):
                    part = replace(part, origin=origin)
                    faces, vertices = faces + len(part.faces), vertices + len(part.vertices)
                    if faces > MAX_FACES or vertices > MAX_ELEMENTS:
                        raise ValueError(f"it has more than {MAX_FACES} triangles, or too many vertices; simplify it")
                    yield part

    def _origin(self, node: dict[str, Any], mesh: dict[str, Any], primitive: dict[str, Any]) -> PartOrigin:
        material = primitive.get("material")
        items = [node, mesh, *([] if material is None else [self._document.item("materials", material)])]
        return PartOrigin(tuple(str(item["name"]) for item in items if item.get("name")), material)

    def _instances(self, node: dict[str, Any], world: Matrix) -> list[Matrix]:
        """World transforms of the instances of a node's mesh; one, unless the instancing extension is used."""
        instances = node.get("extensions", {}).get(INSTANCES)
        if instances is None:
            return [world]
        given = instances["attributes"]
        moves, turns, scales = (
            self._accessors.numbers(given[name], width) if name in given else None
            for name, width in (("TRANSLATION", 3), ("ROTATION", 4), ("SCALE", 3))
        )
        count = max(len(values) for values in (moves, turns, scales) if values is not None)
        return [
            world
            @ _composed(
                np.zeros(3) if moves is None else moves[i],
                np.array([0, 0, 0, 1.0]) if turns is None else turns[i],
                np.ones(3) if scales is None else scales[i],
            )
            for i in range(count)
        ]

    def _joints(self, index: int, placed: dict[int, Matrix]) -> Float[np.ndarray, "j 4 4"]:
        """Joint matrices of a skin: transforms from the bind pose to the current pose of the joints."""
        skin = self._document.item("skins", index)
        joints = skin["joints"]
        if missing := set(joints) - placed.keys():
            raise ValueError(f"skins[{index}] has joints that are not in the scene: nodes {sorted(missing)[:5]}")
        world = np.stack([placed[joint] for joint in joints])
        if "inverseBindMatrices" not in skin:
            return world
        columns = self._accessors.numbers(skin["inverseBindMatrices"], 16)
        return world @ columns[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1)

    def _primitive(
        self,
        primitive: dict[str, Any],
        weights: list[float],
        joints: Float[np.ndarray, "j 4 4"] | None,
        instances: list[Matrix],
    ) -> Iterator[MeshPart]:
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (TRIANGLES, STRIP, FAN) or "POSITION" not in primitive["attributes"]:
            if GAUSSIANS in primitive.get("extensions", {}):
                self._warn_once(f"its Gaussians are ignored; {ALTERNATIVES[GAUSSIANS]}")
            else:
                self._warn_once("points, lines and primitives without positions are ignored")
            return
        attributes, indices = self._accessors.attributes(primitive)

        given = self._accessors.attribute(attributes, primitive, "POSITION", 3)
        assert given is not None
        positions = self._morphed(given, primitive, weights)

        def attribute(name: str, width: int, *, normalized: bool = False) -> Float[np.ndarray, "n width"] | None:
            values = self._accessors.attribute(attributes, primitive, name, width, normalized=normalized)
            if values is not None and len(values) != len(positions):
                raise ValueError(f"it has {len(values)} of {name} for {len(positions)} vertices")
            return values

        order = np.arange(len(positions)) if indices is None else indices
        faces = triangles(order, TRIANGLES if isinstance(attributes["POSITION"], np.ndarray) else mode)
        tints = attribute("COLOR_0", 3, normalized=True)
        if "material" in primitive:
            material = self._materials.material(primitive["material"])
        else:
            material = GltfMaterial(_NO_MATERIAL if tints is None else Paint())
        coordinates = None
        if material.textured:
            coordinates = attribute(f"TEXCOORD_{material.coordinate_set}", 2)
            if coordinates is None:
                self._warn_once(f"a textured mesh has no TEXCOORD_{material.coordinate_set}; it shows one texel")
            elif material.transform is not None:
                coordinates = coordinates @ material.transform[:, :2].T + material.transform[:, 2]
        elif self._maps:
            coordinates = attribute("TEXCOORD_0", 2)
        skin = None if joints is None else self._skin(attribute, joints)
        normals = attribute("NORMAL", 3) if self._maps and skin is None and not any(weights) else None
        for world in instances:
            matrices = world[None] if skin is None else skin
            vertices = (matrices[:, :3, :3] @ positions[:, :, None])[:, :, 0] + matrices[:, :3, 3]
            mirrored = skin is None and np.linalg.det(world[:3, :3]) < 0
            turned = None if normals is None else _turned(normals, world[:3, :3])
            yield MeshPart(vertices, faces[:, ::-1] if mirrored else faces, material.paint, tints, coordinates, turned)

    def _morphed(
        self, positions: Float[np.ndarray, "n 3"], primitive: dict[str, Any], weights: list[float]
    ) -> Float[np.ndarray, "n 3"]:
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            if weight and "POSITION" in target:
                positions = positions + weight * self._accessors.numbers(target["POSITION"], 3)
        return positions

    def _skin(self, attribute: Any, joints: Float[np.ndarray, "j 4 4"]) -> Float[np.ndarray, "n 4 4"] | None:
        """Transform of each vertex: the weighted mean of the matrices of its joints."""
        total, matrices, number = 0.0, 0.0, 0
        while (chosen := attribute(f"JOINTS_{number}", 4)) is not None:
            joint_weights = attribute(f"WEIGHTS_{number}", 4, normalized=True)
            if joint_weights is None or not 0 <= chosen.min(initial=0) <= chosen.max(initial=0) < len(joints):
                raise ValueError("a skinned mesh refers to joints that do not exist, or has no weights")
            matrices = matrices + np.einsum("nk,nkij->nij", joint_weights, joints[chosen.astype(np.int64)])
            total = total + joint_weights.sum(1)
            number += 1
        if number == 0:
            return None
        return matrices / np.where(total > 0, total, 1)[:, None, None]

    def _warn_once(self, line: str) -> None:
        if line not in self._warned:
            self._warned.add(line)
            self._warn(line)


def placed_nodes(document: GltfDocument, roots: list[int] | None = None) -> dict[int, Matrix]:
    """World transforms of the visible nodes below `roots` by node index; None: those of the default scene.

    Raises ValueError if a node does not exist or has two parents.
    """
    out: dict[int, Matrix] = {}
    waiting = [(index, np.eye(4)) for index in reversed(_roots(document) if roots is None else roots)]
    while waiting:
        index, parent = waiting.pop()
        node = document.item("nodes", index)
        if index in out:
            raise ValueError(f"its nodes are not trees: nodes[{index}] has two parents")
        if not node.get("extensions", {}).get("KHR_node_visibility", {}).get("visible", True):
            continue
        out[index] = parent @ local_transform(node)
        waiting += [(child, out[index]) for child in reversed(node.get("children", []))]
    return out


def _roots(document: GltfDocument) -> list[int]:
    """Roots of the default scene; without scenes, all nodes that are not children."""
    if document.items("scenes"):
        return document.item("scenes", document.tree.get("scene", 0)).get("nodes", [])
    nodes = document.items("nodes")
    return sorted(set(range(len(nodes))) - {child for node in nodes for child in node.get("children", [])})


def _turned(normals: Float[np.ndarray, "n 3"], linear: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit normals after a linear map: its cofactors, which are the inverse transpose up to the determinant."""
    cofactors = np.stack(
        [np.cross(linear[1], linear[2]), np.cross(linear[2], linear[0]), np.cross(linear[0], linear[1])]
    )
    turned = normals @ cofactors.T * np.sign(np.linalg.det(linear) or 1.0)
    return turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-30)


def triangles(order: Int[np.ndarray, " n"], mode: int) -> Int[np.ndarray, "f 3"]:
    """Counter-clockwise triangles of a list, strip or fan of vertices; an incomplete last triangle is dropped."""
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if len(order) < 3:
        return np.zeros((0, 3), np.int64)
    if mode == FAN:
        return np.stack([np.full(len(order) - 2, order[0]), order[1:-1], order[2:]], 1)
    faces = np.stack([order[:-2], order[1:-1], order[2:]], 1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces


def local_transform(node: dict[str, Any]) -> Matrix:
    """Transform from a node to its parent."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    move, turn, scale = (
        np.array(node.get(name, default), np.float64)
        for name, default in (("translation", [0, 0, 0]), ("rotation", [0, 0, 0, 1]), ("scale", [1, 1, 1]))
    )
    return _composed(move, turn, scale)


def _composed(move: Float[np.ndarray, " 3"], turn: Float[np.ndarray, " 4"], scale: Float[np.ndarray, " 3"]) -> Matrix:
    """Transform that applies scale, then rotation (quaternion x, y, z, w), then translation."""
    x, y, z, w = turn / max(float(np.linalg.norm(turn)), 1e-12)
    out = np.eye(4)
    out[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    out[:3, :3] *= scale
    out[:3, 3] = move
    return out
