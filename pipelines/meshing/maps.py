"""Further texture maps of a material: tangent-space normals, and occlusion-roughness-metallic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.spatial import KDTree

from steindreamer.representations import TriangleMesh, vertex_normals

from .bake import to_bytes
from .texels import Texels


@dataclass(frozen=True)
class MaterialMaps:
    """Texture maps besides the base color, with the vertex tangents that the normals refer to."""

    tangents: Float[np.ndarray, "v 4"]
    """Unit tangent and the sign of the bitangent `cross(normal, tangent) * sign`, which points up in the texture
    (glTF)."""
    normal: UInt8[np.ndarray, "s s 3"]
    """Normal map in tangent space, linear, +Y up (OpenGL)."""
    occlusion_roughness_metallic: UInt8[np.ndarray, "s s 3"]
    """Linear map of ambient occlusion, roughness and metalness."""


def bake_maps(
    mesh: TriangleMesh,
    detailed: TriangleMesh,
    texels: Texels,
    ambient_occlusion: Float[np.ndarray, " t"],
    roughness: float,
) -> MaterialMaps:
    """Bake the maps of an unwrapped mesh. Normals come from the nearest points of the detailed mesh that it was
    decimated from.

    Args:
        mesh: the unwrapped mesh.
        detailed: the surface before its triangles were reduced.
        texels: the texels of `mesh`.
        roughness: roughness of the material, in [0, 1].
    """
    tangents = vertex_tangents(mesh)
    occlusion = np.stack(
        [ambient_occlusion, np.full_like(ambient_occlusion, roughness), np.zeros_like(ambient_occlusion)], 1
    )
    return MaterialMaps(
        tangents=tangents,
        normal=_normal_map(mesh, tangents, detailed, texels),
        occlusion_roughness_metallic=to_bytes(texels.image(occlusion)),
    )


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


def _normal_map(
    mesh: TriangleMesh, tangents: np.ndarray, detailed: TriangleMesh, texels: Texels
) -> UInt8[np.ndarray, "s s 3"]:
    assert mesh.normals is not None
    normal = _unit(texels.interpolate(mesh.normals))
    frame = texels.interpolate(torch.from_numpy(tangents))
    tangent = _unit(frame[:, :3] - normal * (normal * frame[:, :3]).sum(1, keepdims=True))
    bitangent = np.cross(normal, tangent) * np.sign(frame[:, 3:])
    points, source = detailed.vertices.numpy(), vertex_normals(detailed.vertices, detailed.faces).numpy()
    distance, nearest = KDTree(points).query(texels.interpolate(mesh.vertices), k=4)
    fraction = 1 / np.maximum(distance, 1e-6)[..., None]
    detail = _unit((source[nearest] * fraction).sum(1))
    # On the far side of a thin wall the nearest point faces away: keep the mesh's own normal there.
    detail = np.where((detail * normal).sum(1, keepdims=True) > 0.5, detail, normal)
    local = np.stack([(detail * axis).sum(1) for axis in (tangent, bitangent, normal)], 1)
    return to_bytes(texels.image(_unit(local) * 0.5 + 0.5))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
