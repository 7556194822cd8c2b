"""How far a scene or a mesh is from the world's true object."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import KDTree

from ...representations import Cameras, RenderOutput, Representation, TriangleMesh, render_mesh, sphere_of_cameras

MILLIMETRES = 1000
"""Per metre; objects are 900 mm in radius."""


def visible_points(shape: Representation | TriangleMesh, views: int = 24, size: int = 128) -> np.ndarray:
    """World points of the surface that can be seen from outside, `[n, 3]`: rendered depth where opacity exceeds 0.5."""
    cameras, points = sphere_of_cameras(views, height=size), []
    for index in range(views):
        output = _draw(shape, cameras[index])
        solid = (output.opacity[:, 0] > 0.5) & (output.depth[:, 0] > 0)
        points.append(cameras[index].unproject(output.depth).permute(0, 2, 3, 1)[solid].numpy())
    return np.concatenate(points)


def chamfer_millimetres(
    first: Representation | TriangleMesh, second: Representation | TriangleMesh, views: int = 24, size: int = 128
) -> float:
    """Mean distance between the visible surfaces, accuracy and completeness averaged; inf if one shows none."""
    a, b = (visible_points(shape, views, size) for shape in (first, second))
    if not len(a) or not len(b):
        return math.inf
    return MILLIMETRES / 2 * float(KDTree(a).query(b)[0].mean() + KDTree(b).query(a)[0].mean())


def held_out_psnr(
    shape: Representation | TriangleMesh, truth: Representation | TriangleMesh, views: int = 16, size: int = 256
) -> float:
    """PSNR (dB) of the unlit pictures on white, mean over `held_out_cameras`; at most 100."""
    return float(np.mean(list(_psnr_per_view(shape, truth, views, size))))


def held_out_cameras(views: int = 16, size: int = 256) -> Cameras:
    """Around the object, at heights and azimuths of no training grid."""
    azimuth = [360.0 * (index + 0.5) / views for index in range(views)]
    return Cameras.orbit(azimuth, [(-12.0, 8.0, 33.0, 58.0)[index % 4] for index in range(views)], height=size)


def _psnr_per_view(
    shape: Representation | TriangleMesh, truth: Representation | TriangleMesh, views: int, size: int
) -> Iterator[float]:
    cameras = held_out_cameras(views, size)
    for index in range(views):
        one, other = (_draw(each, cameras[index], supersample=3).rgb for each in (shape, truth))
        yield -10 * float((one - other).square().mean().clamp_min(1e-10).log10())


@torch.no_grad()
def _draw(shape: Representation | TriangleMesh, camera: Cameras, supersample: int = 1) -> RenderOutput:
    """On white, on the CPU; only meshes are supersampled, other scenes draw as they do in training."""
    if isinstance(shape, TriangleMesh):
        return render_mesh(shape, camera, torch.ones(1, 3), supersample=supersample)
    device = next(shape.parameters()).device
    output = shape.render(camera.to(device), torch.ones(1, 3, device=device))
    return RenderOutput(output.rgb.cpu(), output.opacity.cpu(), output.depth.cpu(), output.normal.cpu())
