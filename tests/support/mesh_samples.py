"""Sample meshes for the rasterization tests."""

from __future__ import annotations

import torch
import trimesh
from torch import Tensor

from steindreamer.representations import TriangleMesh


def sphere(radius: float, subdivisions: int = 4) -> TriangleMesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return TriangleMesh(torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces.copy()).long())


def bumpy_sphere(subdivisions: int = 4) -> TriangleMesh:
    """A sphere with bumps that occlude parts of it from most sides, colored by position."""
    mesh = sphere(0.75, subdivisions)
    x, y, z = (12 * mesh.vertices).unbind(1)
    vertices = mesh.vertices * (1 + 0.2 * (x.sin() * (0.8 * y).sin() * (0.9 * z).sin())[:, None])
    return TriangleMesh(vertices, mesh.faces, colors=mesh.vertices * 0.5 + 0.5)


def cube(half: float = 0.6) -> TriangleMesh:
    mesh = trimesh.creation.box(extents=[2 * half] * 3)
    return TriangleMesh(torch.from_numpy(mesh.vertices.copy()).float(), torch.from_numpy(mesh.faces.copy()).long())


def square(half: float = 1.0, z: float = 0.0, **attributes: Tensor) -> TriangleMesh:
    """A square facing +Z; vertices: top left, bottom left, bottom right, top right in the front view."""
    corners = torch.tensor([[-half, half, z], [-half, -half, z], [half, -half, z], [half, half, z]])
    return TriangleMesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]), **attributes)


def triangle_soup(generator: torch.Generator, count: int = 60, size: float = 0.4) -> TriangleMesh:
    centers = torch.rand(count, 1, 3, generator=generator) * 1.6 - 0.8
    corners = centers + size * torch.randn(count, 3, 3, generator=generator)
    return TriangleMesh(corners.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))


def joined(*meshes: TriangleMesh, colors: Tensor) -> TriangleMesh:
    """Join meshes to one with vertex colors, one color [parts 3] per mesh."""
    vertices = torch.cat([mesh.vertices for mesh in meshes])
    sizes = torch.tensor([len(mesh.vertices) for mesh in meshes])
    before = sizes.cumsum(0) - sizes
    faces = torch.cat([mesh.faces + offset for mesh, offset in zip(meshes, before, strict=True)])
    return TriangleMesh(vertices, faces, colors=colors.repeat_interleave(sizes, 0))
