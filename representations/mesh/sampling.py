"""Random sampling of points on a triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..triangle_mesh import TriangleMesh, face_normals
from .painted import PaintedMesh
from .render import sample_texture


@dataclass(frozen=True)
class SurfaceSamples:
    """Points on a surface, with normals and colors."""

    points: Float[Tensor, "n 3"]
    """World positions in meters."""
    normals: Float[Tensor, "n 3"]
    """Outward unit normals of the faces."""
    colors: Float[Tensor, "n 3"] | None
    """Colors in sRGB from the materials or the texture, else from the vertex colors; None if the mesh has no colors."""


def sample_surface(mesh: TriangleMesh, count: int, generator: torch.Generator) -> SurfaceSamples:
    """Sample `count` points uniformly by area, on the device of the mesh. Raises ValueError for a mesh without area.

    Example:
        >>> from steindreamer.representations import TriangleMesh, sample_surface
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> triangle = TriangleMesh(corners, torch.tensor([[0, 1, 2]]))
        >>> sample_surface(triangle, 5, torch.Generator().manual_seed(0)).points.shape
        torch.Size([5, 3])
    """
    vertices, faces = mesh.vertices.detach(), mesh.faces
    corners = vertices[faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).double()
    if not bool(areas.sum() > 0):
        raise ValueError("cannot sample points on a mesh without area")
    draws = torch.rand(count, 3, generator=generator, device=generator.device).to(vertices)
    chosen = torch.searchsorted(areas.cumsum(0), draws[:, 0] * areas.sum()).clamp(max=len(faces) - 1)
    # Uniform in the triangle (Osada et al. 2002, eq. 1).
    root = draws[:, 1].sqrt()
    weights = torch.stack([1 - root, root * (1 - draws[:, 2]), root * draws[:, 2]], 1)[:, :, None]

    def interpolate(values: Float[Tensor, "v c"]) -> Float[Tensor, "n c"]:
        return (weights * values.detach()[faces[chosen]]).sum(1)

    colors = None
    if isinstance(mesh, PaintedMesh):
        colors = mesh.colors_at(chosen, weights[:, :, 0]).to(vertices)
    elif mesh.texture is not None and mesh.uvs is not None:
        uvs = interpolate(mesh.uvs).T[None, :, :, None]
        colors = sample_texture(mesh.texture.detach(), uvs)[0, :, :, 0].T.contiguous()
    elif mesh.colors is not None:
        colors = interpolate(mesh.colors)
    return SurfaceSamples(interpolate(vertices), face_normals(vertices, faces)[chosen], colors)
