"""A closed surface around any triangles, by level sets: open sheets get a thickness, interiors are filled."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from manifold3d import Error, Manifold, Mesh
from scipy import ndimage
from skimage.measure import marching_cubes

from steindreamer.representations import SurfaceIndex, TriangleMesh, sample_surface

_REACH = 1.0
"""Distance between the triangles and the level set in voxels: holes of up to twice this width are closed."""
_MARGIN = 4
"""Empty voxels around the surface."""
_LEFT = 0.15
"""Fraction of the distance that remains after the level set is moved to the triangles: half a sheet's thickness."""
_SAMPLES_PER_VOXEL = 6.0
"""Points per squared voxel size that find the voxels near the surface."""


def wrap(mesh: TriangleMesh, resolution: int) -> TriangleMesh:
    """A closed manifold around the surface.

    Space that cannot be reached from outside through gaps wider than two voxels becomes solid. Raises ValueError for a
    surface without size.

    Args:
        mesh: the surface.
        resolution: number of voxels along its longest side.
    """
    low = mesh.vertices.amin(0).double().numpy()
    extent = np.ptp(mesh.vertices.double().numpy(), axis=0)
    size = float(extent.max()) / resolution
    if not size > 0:
        raise ValueError("the surface has no size, so that it cannot be wrapped")
    index = SurfaceIndex(mesh)
    origin = low - _MARGIN * size
    level = _level(mesh, index, origin, size, np.ceil(extent / size).astype(int) + 2 * _MARGIN + 1)
    solid = _surface(level, origin, size)
    out = solid.to_mesh()
    vertices, faces = np.asarray(out.vert_properties[:, :3]), out.tri_verts.astype(np.int64)
    return TriangleMesh(_moved(torch.from_numpy(vertices.astype(np.float32)), mesh, index), torch.from_numpy(faces))


def _level(
    mesh: TriangleMesh, index: SurfaceIndex, origin: np.ndarray, size: float, shape: np.ndarray
) -> Float[np.ndarray, "x y z"]:
    """`_REACH` minus the distance in voxels, near the surface; positive inside, negative outside."""
    corners = mesh.vertices.double()[mesh.faces]
    area = 0.5 * float(
        torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum()
    )
    count = int(min(5e6, max(10_000, _SAMPLES_PER_VOXEL * area / size**2)))
    points = sample_surface(mesh, count, torch.Generator().manual_seed(0)).points
    points = torch.cat([points, mesh.vertices, mesh.vertices[mesh.faces].mean(1)])
    touched = np.zeros(tuple(shape), bool)
    cells = np.floor((points.double().numpy() - origin) / size).astype(int).clip(0, shape - 1)
    touched[cells[:, 0], cells[:, 1], cells[:, 2]] = True
    near: np.ndarray = np.asarray(ndimage.binary_dilation(touched, np.ones((3, 3, 3), bool), iterations=2))
    places = np.argwhere(near)
    distance = index.closest(torch.from_numpy(origin + places * size)).distance.numpy() / size
    level = np.full(near.shape, -_REACH)
    level[near] = _REACH - np.asarray(distance)
    outside = np.empty(near.shape, np.int32)
    ndimage.label(level < 0, output=outside)
    outer = outside == outside[0, 0, 0]
    return np.where(outer | (level >= 0), level, _REACH)


def _surface(level: Float[np.ndarray, "x y z"], origin: np.ndarray, size: float) -> Manifold:
    """The largest closed manifold at level 0, without cavities."""
    vertices, faces, _, _ = marching_cubes(level, 0.0, gradient_direction="ascent")
    solid = Manifold(Mesh((vertices * size + origin).astype(np.float32), faces.astype(np.uint32)))
    if solid.status() != Error.NoError:  # cells whose corners are exactly at the level
        bounds = [*origin, *(origin + (np.array(level.shape) - 1) * size)]

        def at(x: float, y: float, z: float) -> float:
            place = (np.array([x, y, z]) - origin) / size
            return float(ndimage.map_coordinates(level, place[:, None], order=1, mode="nearest")[0])

        solid = Manifold.level_set(at, bounds, 2 * size)
    parts = [part for part in solid.decompose() if part.volume() > 0]
    if not parts:
        raise ValueError("the wrapped surface is empty")
    return Manifold.compose(parts)


def _moved(vertices: Float[torch.Tensor, "v 3"], mesh: TriangleMesh, index: SurfaceIndex) -> Float[torch.Tensor, "v 3"]:
    """The vertices close to the surface, on the side where they are."""
    nearest = index.closest(vertices)
    target = nearest.interpolate(mesh.vertices, mesh)
    return target + _LEFT * (vertices - target)
