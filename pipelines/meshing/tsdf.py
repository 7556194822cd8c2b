"""A grid of inside values around an object, computed from its images: silhouettes carve, depth maps refine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

from steindreamer.representations.jit import EXACT

from .views import Views

Volume = np.ndarray
"""Inside values `[x y z]` on a grid's corners; larger is more solid."""

_MARGIN = 3
"""Number of empty voxels kept around the object."""


@dataclass(frozen=True)
class Grid:
    """Cubic voxels with values on the corners `origin + voxel * (i, j, k)`."""

    origin: np.ndarray
    voxel: float
    shape: tuple[int, int, int]

    def points(self) -> np.ndarray:
        """Corner positions `[x y z, 3]`, float32."""
        axes = [self.origin[a] + self.voxel * np.arange(self.shape[a]) for a in range(3)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def coarse_grid() -> Grid:
    """A grid with 64 corners per side around the unit ball, which is enough to locate the object."""
    return Grid(np.full(3, -1.1), 2.2 / 63, (64, 64, 64))


def bounding_grid(hull: Volume, resolution: int) -> Grid:
    """The grid around the visual hull on the coarse grid. Raises ValueError if the hull is empty."""
    coarse = coarse_grid()
    corners = np.argwhere(hull > -0.9)
    if len(corners) == 0:
        raise ValueError("the views do not agree on any common solid; are the cameras and the depth consistent?")
    low = coarse.origin + coarse.voxel * (corners.min(0) - 1)
    high = coarse.origin + coarse.voxel * (corners.max(0) + 1)
    voxel = float((high - low).max() / resolution)
    x, y, z = (int(n) for n in np.ceil((high - low) / voxel).astype(int) + 1 + 2 * _MARGIN)
    return Grid(low - _MARGIN * voxel, voxel, (x, y, z))


def fuse(views: Views, level: float, grid: Grid, *, truncation: float, votes: int, use_depth: bool) -> Volume:
    """Fuse views into inside values in [-1, 1]: 0 on the surface, -1 at one truncation outside, 1 at one truncation
    inside or never seen.

    Args:
        views: the images.
        level: opacity from which a pixel is solid.
        grid: the grid to fill.
        truncation: truncation distance in voxels.
        votes: number of views that must see a point as empty.
        use_depth: whether to use depth maps; False: silhouettes only.
    """
    cameras = views.cameras
    outline = (views.opacity[:, 0] * (0.5 / level)).clamp(max=1)
    facing = _facing(views) if use_depth else torch.zeros(1, 1, 1)
    out = np.empty(grid.shape, np.float32)
    _fuse_kernel(
        grid.origin.astype(np.float32),
        np.float32(grid.voxel),
        cameras.world_to_camera.numpy(),
        cameras.intrinsics.numpy(),
        views.depth[:, 0].contiguous().numpy(),
        facing.contiguous().numpy(),
        outline.contiguous().numpy(),
        np.float32(truncation * grid.voxel),
        min(votes, len(cameras)),
        use_depth,
        out,
    )
    return out


def _facing(views: Views) -> Float[Tensor, "v h w"]:
    """Cosine between the surface normal and the direction to the camera, at least 0.2; 1 where it is not positive."""
    rays = views.cameras.rays()
    # F.normalize is ten times slower over a channel axis.
    facing = -(views.normal * rays).sum(1) * rays.square().sum(1).rsqrt()
    return torch.where(facing > 1e-3, facing, 1.0).clamp_min(0.2)


@njit(parallel=True, **EXACT)
@no_type_check
def _fuse_kernel(origin, voxel, poses, intrinsics, depth, facing, outline, truncation, votes, use_depth, out):
    """Compute the outside distance of each corner in every view, and store the negative mean of the `votes` largest."""
    count, height, width = outline.shape
    for i in prange(out.shape[0]):
        largest = np.empty(votes, np.float32)
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = origin[0] + voxel * i, origin[1] + voxel * j, origin[2] + voxel * k
                largest[:] = -1.0
                for v in range(count):
                    pose = poses[v]
                    zc = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
                    if zc <= 1e-3:
                        continue
                    xc = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
                    yc = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
                    u = intrinsics[v, 0, 0] * xc / zc + intrinsics[v, 0, 2] - 0.5
                    w = intrinsics[v, 1, 1] * yc / zc + intrinsics[v, 1, 2] - 0.5
                    u0, w0 = int(np.floor(u)), int(np.floor(w))
                    if u0 < 0 or w0 < 0 or u0 + 1 >= width or w0 + 1 >= height:
                        # The object is inside the unit ball, which is completely visible in every view.
                        value, covered, a, b = 1.0, 0.0, 0.0, 0.0
                    else:
                        a, b = u - u0, w - w0
                        covered = (1 - b) * ((1 - a) * outline[v, w0, u0] + a * outline[v, w0, u0 + 1])
                        covered += b * ((1 - a) * outline[v, w0 + 1, u0] + a * outline[v, w0 + 1, u0 + 1])
                        value = 1 - 2 * covered
                    if use_depth and covered >= 0.5:
                        near, far, total, weight = 1e30, 0.0, 0.0, 0.0
                        for dw in range(2):
                            for du in range(2):
                                d = depth[v, w0 + dw, u0 + du]
                                if outline[v, w0 + dw, u0 + du] >= 0.5 and d > 0:
                                    fraction = (b if dw else 1 - b) * (a if du else 1 - a)
                                    near, far = min(near, d), max(far, d)
                                    total += fraction * d
                                    weight += fraction
                        # At a depth edge neither side is right; such a pixel is ignored.
                        if weight > 1e-3 and far - near < 2 * truncation:
                            wn, un = w0 + (1 if b > 0.5 else 0), u0 + (1 if a > 0.5 else 0)
                            distance = (total / weight - zc) * facing[v, wn, un] / truncation
                            value = max(value, min(1.0, distance))
                    if value > largest[votes - 1]:
                        n = votes - 1
                        while n > 0 and largest[n - 1] < value:
                            largest[n] = largest[n - 1]
                            n -= 1
                        largest[n] = value
                        if largest[votes - 1] >= 1.0:
                            break  # certainly empty
                out[i, j, k] = -largest.mean()
