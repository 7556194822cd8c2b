"""Distances between a scene or mesh and the true object of the world."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial import KDTree

from steindreamer.representations import (
    Cameras,
    RenderOutput,
    Representation,
    TriangleMesh,
    render_mesh,
    sphere_of_cameras,
)

MILLIMETERS = 1000
"""Millimeters per meter; objects have a radius of 900 mm."""


def visible_points(shape: Representation | TriangleMesh, views: int = 24, size: int = 128) -> np.ndarray:
    """Return world points `[n, 3]` of the surface visible from outside: rendered depth where opacity exceeds 0.5."""
    cameras, points = sphere_of_cameras(views, height=size), []
    for index in range(views):
        output = _draw(shape, cameras[index])
        solid = (output.opacity[:, 0] > 0.5) & (output.depth[:, 0] > 0)
        points.append(cameras[index].unproject(output.depth).permute(0, 2, 3, 1)[solid].numpy())
    return np.concatenate(points)


def chamfer_millimeters(
    first: Representation | TriangleMesh, second: Representation | TriangleMesh, views: int = 24, size: int = 128
) -> float:
    """Chamfer distance of the visible surfaces: mean of accuracy and completeness; inf if one surface is empty."""
    a, b = (visible_points(shape, views, size) for shape in (first, second))
    if not len(a) or not len(b):
        return math.inf
    return MILLIMETERS / 2 * float(KDTree(a).query(b)[0].mean() + KDTree(b).query(a)[0].mean())


def held_out_psnr(
    shape: Representation | TriangleMesh, truth: Representation | TriangleMesh, views: int = 16, size: int = 256
) -> float:
    """PSNR in dB of the unlit images on white, averaged over `held_out_cameras`; at most 100."""
    return float(np.mean(list(_psnr_per_view(shape, truth, views, size))))


def mean_normal_error(
    shape: Representation | TriangleMesh, truth: Representation | TriangleMesh, views: int = 16, size: int = 256
) -> float:
    """Mean angle in degrees between the rendered normals.

    The mean is over the pixels of `held_out_cameras` that are opaque in both; nan if there are none.
    """
    cameras, angles = held_out_cameras(views, size), []
    for index in range(views):
        one, other = (_draw(each, cameras[index]) for each in (shape, truth))
        solid = (torch.minimum(one.opacity, other.opacity) > 0.5)[:, 0]
        cosine = F.cosine_similarity(one.normal, other.normal, dim=1)[solid]
        angles.append(cosine.clamp(-1, 1).arccos().rad2deg())
    return float(torch.cat(angles).mean())


def view_consistency(
    shape: Representation | TriangleMesh,
    truth: Representation | TriangleMesh,
    views: int = 16,
    size: int = 256,
    azimuths: int = 8,
) -> float:
    """Fraction of the images at `held_out_cameras` that show the correct side.

    Each image is compared with images of the true object at the same elevation and at `azimuths` equally spaced
    azimuths. It is correct if the one with its own azimuth has the smallest squared error. The value is 1 for the true
    object and falls for a face at the back (the Janus problem) and for a scene rotated about its axis. It is not
    meaningful for objects that look the same from several sides.
    """
    cameras = held_out_cameras(views, size)
    right = 0
    for index in range(views):
        azimuth, elevation = float(cameras.azimuth[index]), float(cameras.elevation[index])
        around = Cameras.orbit(
            [azimuth + 360 * k / azimuths for k in range(azimuths)], [elevation] * azimuths, height=size
        )
        image = _draw(shape, cameras[index]).rgb
        errors = [float((_draw(truth, around[k]).rgb - image).square().mean()) for k in range(azimuths)]
        right += errors.index(min(errors)) == 0
    return right / views


def held_out_cameras(views: int = 16, size: int = 256) -> Cameras:
    """Return cameras around the object at elevations and azimuths that no training grid uses."""
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
    """Render on white, on the CPU; only meshes are supersampled, other scenes are rendered as in training."""
    if isinstance(shape, TriangleMesh):
        return render_mesh(shape, camera, torch.ones(1, 3), supersample=supersample)
    device = next(shape.parameters()).device
    output = shape.render(camera.to(device), torch.ones(1, 3, device=device))
    return RenderOutput(output.rgb.cpu(), output.opacity.cpu(), output.depth.cpu(), output.normal.cpu())
