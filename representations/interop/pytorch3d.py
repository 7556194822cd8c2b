"""Meshes and cameras as PyTorch3D's [Ravi et al. 2020, arXiv:2007.08501], and its losses; an optional package.

Its axes differ from ours: its cameras look along +z with x to the left and y up, and its texture coordinates have v
growing upward.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steindreamer.optional import PYTORCH3D_INSTALL, load

from ..cameras import Cameras
from ..triangle_mesh import TriangleMesh
from .uvs import flip_v


def to_pytorch3d(mesh: TriangleMesh) -> Any:
    """A `pytorch3d.structures.Meshes` with one mesh: differentiable, with normals and texture or vertex colors.

    Raises ValueError without PyTorch3D, or for a texture without `uvs`.
    """
    structures, renderer = (
        load("pytorch3d.structures", PYTORCH3D_INSTALL),
        load("pytorch3d.renderer", PYTORCH3D_INSTALL),
    )
    textures = None
    if mesh.texture is not None:
        if mesh.uvs is None:
            raise ValueError("a textured mesh needs `uvs`; give them, or leave the texture out")
        # Texel centers lie at half-integers, as in `sample_texture`.
        textures = renderer.TexturesUV(
            [mesh.texture.permute(1, 2, 0)],
            [mesh.faces],
            [flip_v(mesh.uvs)],
            align_corners=False,
            padding_mode="border",
        )
    elif mesh.colors is not None:
        textures = renderer.TexturesVertex([mesh.colors])
    normals = None if mesh.normals is None else [mesh.normals]
    return structures.Meshes([mesh.vertices], [mesh.faces], textures=textures, verts_normals=normals)


def cameras_to_pytorch3d(cameras: Cameras) -> Any:
    """Convert cameras to `pytorch3d.renderer.PerspectiveCameras` with the same image size.

    Raises ValueError without PyTorch3D.
    """
    conversions = load("pytorch3d.utils", PYTORCH3D_INSTALL)
    pose = cameras.world_to_camera
    size = torch.tensor([[cameras.height, cameras.width]], device=pose.device).expand(len(cameras), 2)
    return conversions.cameras_from_opencv_projection(pose[:, :3, :3], pose[:, :3, 3], cameras.intrinsics, size)


def chamfer_distance(points: Float[Tensor, "n 3"], others: Float[Tensor, "m 3"]) -> Float[Tensor, ""]:
    """Mean squared distance to the nearest point of the other set, both directions added; square meters.

    Differentiable in both. Raises ValueError without PyTorch3D.
    """
    distance, _ = load("pytorch3d.loss", PYTORCH3D_INSTALL).chamfer_distance(points[None], others[None])
    return distance


def mesh_losses(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], *, edge_target: float = 0.0
) -> dict[str, Float[Tensor, ""]]:
    """Penalties on the shape of a mesh; all 0 for a mesh without faces.

    laplacian                 mean distance of a vertex to the mean of its neighbors, meters [Nealen et al. 2006]
    edge_normal_consistency   mean of 1 - cos between the normals of two faces that share an edge, in [0, 2]
    edge_length               mean squared difference of an edge's length to `edge_target`, square meters

    Raises ValueError without PyTorch3D.
    """
    loss = load("pytorch3d.loss", PYTORCH3D_INSTALL)
    if not len(faces):
        return {name: 0 * vertices.sum() for name in ("laplacian", "edge_normal_consistency", "edge_length")}
    meshes = to_pytorch3d(TriangleMesh(vertices, faces))
    return {
        "laplacian": loss.mesh_laplacian_smoothing(meshes, method="uniform"),
        # Shape [1] instead of a scalar where no two faces meet.
        "edge_normal_consistency": loss.mesh_normal_consistency(meshes).sum(),
        "edge_length": loss.mesh_edge_loss(meshes, target_length=edge_target),
    }
