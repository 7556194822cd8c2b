"""Further texture maps of a material: tangent-space normals, and occlusion-roughness-metallic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8

from steindreamer.representations import SurfaceIndex, TriangleMesh, vertex_normals

from .bake import to_bytes
from .texels import Texels

NormalMapChoice: TypeAlias = Literal["auto", "always", "never"]
LEAST_DETAIL = 2.0
"""Degrees that a twentieth of the texels must differ from the mesh's own normals, for `auto` to keep a normal map."""


@dataclass(frozen=True)
class NormalMap:
    """A normal map, with the vertex tangents that it refers to."""

    tangents: Float[np.ndarray, "v 4"]
    """Unit tangent and the sign of the bitangent `cross(normal, tangent) * sign`, which points up in the texture
    (glTF)."""
    image: UInt8[np.ndarray, "s s 3"]
    """Normals in tangent space, linear, +Y up (OpenGL)."""
    detail: float
    """95th percentile, over the texels, of the angle to the mesh's own normals, in degrees."""


@dataclass(frozen=True)
class MaterialMaps:
    """Texture maps besides the base color."""

    normal: NormalMap | None
    occlusion_roughness_metallic: UInt8[np.ndarray, "s s 3"]
    """Linear map of ambient occlusion, roughness and metalness."""


def bake_maps(
    normal: NormalMap | None,
    texels: Texels,
    ambient_occlusion: Float[np.ndarray, " t"],
    roughness: float,
) -> MaterialMaps:
    """The maps of an unwrapped mesh.

    Args:
        normal: its normal map; None for a material without.
        texels: the texels of `mesh`.
        ambient_occlusion: ambient occlusion per texel.
        roughness: roughness of the material, in [0, 1].
    """
    occlusion = np.stack(
        [ambient_occlusion, np.full_like(ambient_occlusion, roughness), np.zeros_like(ambient_occlusion)], 1
    )
    return MaterialMaps(normal, to_bytes(texels.image(occlusion)))


def vertex_tangents(mesh: TriangleMesh) -> Float[np.ndarray, "v 4"]:
    """Tangents along u, orthogonal to the vertex normals, averaged over the faces by area."""
    assert mesh.uvs is not None and mesh.normals is not None
    faces, normals = mesh.faces.numpy(), mesh.normals.numpy().astype(np.float64)
    corners, uvs = mesh.vertices.numpy().astype(np.float64)[faces], mesh.uvs.numpy().astype(np.float64)[faces]
    edge_1, edge_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    uv_1, uv_2 = uvs[:, 1] - uvs[:, 0], uvs[:, 2] - uvs[:, 0]
    side = np.sign(uv_1[:, 0] * uv_2[:, 1] - uv_2[:, 0] * uv_1[:, 1])[:, None]
    along_u = side * (edge_1 * uv_2[:, 1:] - edge_2 * uv_1[:, 1:])
    along_v = side * (edge_2 * uv_1[:, :1] - edge_1 * uv_2[:, :1])
    tangent, down = (_sum_at_vertices(value, faces, len(normals)) for value in (along_u, along_v))
    tangent -= normals * (normals * tangent).sum(1, keepdims=True)
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    # Any direction in the surface works for a vertex whose faces cancel.
    spare = np.cross(normals, np.eye(3)[np.abs(normals).argmin(1)])
    tangent = np.where(length > 1e-12, tangent, spare)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    sign = np.where((np.cross(normals, tangent) * down).sum(1) > 0, -1.0, 1.0)
    return np.concatenate([tangent, sign[:, None]], 1).astype(np.float32)


def _sum_at_vertices(values: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    return np.stack([np.bincount(faces.ravel(), np.repeat(values[:, a], 3), count) for a in range(3)], 1)


def bake_normals(mesh: TriangleMesh, detailed: TriangleMesh, texels: Texels) -> NormalMap:
    """Bake the normals of the nearest points of the detailed mesh that an unwrapped mesh was decimated from."""
    assert mesh.normals is not None
    tangents = vertex_tangents(mesh)
    normal = _unit(texels.interpolate(mesh.normals))
    frame = texels.interpolate(torch.from_numpy(tangents))
    tangent = _unit(frame[:, :3] - normal * (normal * frame[:, :3]).sum(1, keepdims=True))
    bitangent = np.cross(normal, tangent) * np.sign(frame[:, 3:])
    points, facing = torch.from_numpy(texels.interpolate(mesh.vertices)), torch.from_numpy(normal)
    source = vertex_normals(detailed.vertices, detailed.faces)
    nearest = SurfaceIndex(detailed).closest(points, facing)
    detail = _unit(nearest.interpolate(source.to(points), detailed).numpy())
    # Where the nearest point faces elsewhere, it belongs to another part: keep the mesh's own normal there.
    detail = np.where((detail * normal).sum(1, keepdims=True) > 0.5, detail, normal)
    local = np.stack([(detail * axis).sum(1) for axis in (tangent, bitangent, normal)], 1)
    local = _unit(local)
    angle = float(np.degrees(np.arccos(np.clip(np.percentile(local[:, 2], 5), -1, 1))))
    return NormalMap(tangents, to_bytes(texels.image(local * 0.5 + 0.5)), angle)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
