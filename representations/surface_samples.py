"""Random points on a triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .mesh import TriangleMesh, face_normals
from .mesh_render import sample_texture
from .painted_mesh import PaintedMesh


@dataclass(frozen=True)
class SurfaceSamples:
    """Points with what the mesh is there."""

    points: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    """Of the faces, outward."""
    colours: Float[Tensor, "n 3"] | None
    """From the paints or the texture, else from the vertex colours; None if the mesh has none of them."""


def sample_surface(mesh: TriangleMesh, count: int, generator: torch.Generator) -> SurfaceSamples:
    """`count` points, uniform by area, on the mesh's device. Raises ValueError for a mesh without area."""
    vertices, faces = mesh.vertices.detach(), mesh.faces
    corners = vertices[faces]
    areas = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).double()
    if not bool(areas.sum() > 0):
        raise ValueError("cannot place points on a mesh without area")
    draws = torch.rand(count, 3, generator=generator, device=generator.device).to(vertices)
    chosen = torch.searchsorted(areas.cumsum(0), draws[:, 0] * areas.sum()).clamp(max=len(faces) - 1)
    # Uniform in the triangle (Osada et al. 2002, eq. 1).
    root = draws[:, 1].sqrt()
    weights = torch.stack([1 - root, root * (1 - draws[:, 2]), root * draws[:, 2]], 1)[:, :, None]

    def interpolate(values: Float[Tensor, "v c"]) -> Float[Tensor, "n c"]:
        return (weights * values.detach()[faces[chosen]]).sum(1)

    colours = None
    if isinstance(mesh, PaintedMesh):
        colours = mesh.colours_at(chosen, weights[:, :, 0]).to(vertices)
    elif mesh.texture is not None and mesh.uvs is not None:
        uvs = interpolate(mesh.uvs).T[None, :, :, None]
        colours = sample_texture(mesh.texture.detach(), uvs)[0, :, :, 0].T.contiguous()
    elif mesh.colours is not None:
        colours = interpolate(mesh.colours)
    return SurfaceSamples(interpolate(vertices), face_normals(vertices, faces)[chosen], colours)
