"""A small asset without a defect for any engine, and its content to plant defects in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from gltf_samples import Gltf, image

from steindreamer.pipelines.meshing.maps import vertex_tangents
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.pipelines.meshing.unwrap import unwrap
from steindreamer.representations import TriangleMesh

SIZE = 128
"""Side of the textures."""


@cache
def ball(subdivisions: int, padding: int = 4) -> TriangleMesh:
    """A sphere that stands on the ground, unwrapped."""
    sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.4)
    vertices = torch.from_numpy(np.asarray(sphere.vertices) + np.array([0, 0.4, 0])).float()
    mesh = TriangleMesh(vertices, torch.from_numpy(np.array(sphere.faces, np.int64)))
    return unwrap(mesh, SIZE, padding)


def attributes(mesh: TriangleMesh) -> dict[str, np.ndarray]:
    """The arrays of a primitive, with "faces"."""
    assert mesh.normals is not None and mesh.uvs is not None
    return {
        "POSITION": mesh.vertices.numpy().copy(),
        "NORMAL": mesh.normals.numpy().copy(),
        "TANGENT": vertex_tangents(mesh),
        "TEXCOORD_0": mesh.uvs.numpy().copy(),
        "TEXCOORD_1": mesh.uvs.numpy().copy(),
        "faces": mesh.faces.numpy().astype("<u2"),
    }


def textures() -> dict[str, np.ndarray]:
    """Images by name: mottled color, packed occlusion, roughness and metalness, and a bumpy normal map."""
    rng = np.random.default_rng(0)
    gray = rng.integers(110, 150, (SIZE, SIZE, 1))
    bumps = rng.normal(0, 0.2, (SIZE, SIZE, 2))
    normal = np.concatenate([bumps, np.ones((SIZE, SIZE, 1))], 2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    packed = np.concatenate([gray + 80, gray, 0 * gray], 2)
    return {
        "T_Ball_BC": (gray * (1.2, 0.9, 0.7)).astype(np.uint8),
        "T_Ball_N": (127.5 + 127.5 * normal).round().astype(np.uint8),
        "T_Ball_ORM": packed.astype(np.uint8),
    }


@dataclass
class Content:
    """The content of a file, which a defect changes before it is written."""

    arrays: dict[str, np.ndarray] = field(default_factory=lambda: attributes(ball(2)))
    level: dict[str, np.ndarray] | None = field(default_factory=lambda: attributes(ball(1)))
    """The reduced level; None: the file has none."""
    hull: trimesh.Trimesh | None = field(default_factory=lambda: trimesh.creation.icosphere(0, 0.42))
    images: dict[str, Any] = field(default_factory=lambda: dict(textures()))
    slots: dict[str, str] = field(
        default_factory=lambda: {
            "base": "T_Ball_BC", "packed": "T_Ball_ORM", "occlusion": "T_Ball_ORM", "normal": "T_Ball_N",
        }
    )  # fmt: skip
    surface: dict[str, Any] = field(default_factory=lambda: {"metallicFactor": 1.0, "roughnessFactor": 1.0})
    material: dict[str, Any] = field(default_factory=lambda: {"name": "M_Ball"})
    node: dict[str, Any] = field(default_factory=lambda: {"name": "SM_Ball_LOD0"})
    tree: Callable[[dict[str, Any]], None] = lambda tree: None
    """Changes the JSON at the end."""

    def glb(self) -> Gltf:
        """The document."""
        out = Gltf()
        numbers = {}
        for name, pixels in self.images.items():
            raw = pixels if isinstance(pixels, bytes) else image(pixels)
            source = out.add("images", name=name, bufferView=out.view(raw), mimeType="image/png")
            numbers[name] = {"index": out.add("textures", source=source, sampler=0)}
        out.add("samplers", wrapS=33071, wrapT=33071)
        used = {slot: numbers[name] for slot, name in self.slots.items()}
        keys = {"base": "baseColorTexture", "packed": "metallicRoughnessTexture"}
        surface = self.surface | {key: used[slot] for slot, key in keys.items() if slot in used}
        keys = {"occlusion": "occlusionTexture", "normal": "normalTexture"}
        out.add(
            "materials",
            pbrMetallicRoughness=surface,
            **self.material,
            **{key: used[slot] for slot, key in keys.items() if slot in used},
        )
        self._object(out, self.arrays, self.node, 0)
        if self.level is not None:
            self._object(out, self.level, {"name": "SM_Ball_LOD1"}, 0)
        if self.hull is not None:
            shape = {"POSITION": np.asarray(self.hull.vertices, "<f4") + np.array([0, 0.4, 0], "<f4")}
            self._object(out, {**shape, "faces": np.asarray(self.hull.faces, "<u2")}, {"name": "UCX_SM_Ball_00"}, None)
        self.tree(out.tree)
        return out

    def save(self, folder: Path, name: str = "SM_Ball.glb") -> Path:
        """Write the file."""
        return self.glb().save(folder, name)

    @staticmethod
    def _object(out: Gltf, arrays: dict[str, np.ndarray], node: dict[str, Any], material: int | None) -> None:
        given = {name: out.accessor(values.astype("<f4")) for name, values in arrays.items() if name != "faces"}
        primitive: dict[str, Any] = {"attributes": given, "indices": out.accessor(arrays["faces"].reshape(-1))}
        if material is not None:
            primitive["material"] = material
        out.node(mesh=out.add("meshes", name=node["name"], primitives=[primitive]), **node)


def lit(light: tuple[float, float, float] = (0.3, 0.9, 0.3)) -> np.ndarray:
    """A base color texture with baked light from above."""
    mesh = ball(2)
    assert mesh.normals is not None
    texels = rasterize_uvs(mesh, SIZE)
    cosine = np.clip(texels.interpolate(mesh.normals) @ np.array(light), 0, None)
    linear = 0.4 * (0.3 + 0.7 * cosine[:, None]) * np.array([1.0, 0.8, 0.6])
    return (255 * texels.image(linear ** (1 / 2.2))).astype(np.uint8)
