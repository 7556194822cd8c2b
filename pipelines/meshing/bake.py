"""Base color of each texel, from the images in which it is visible or from the color field."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numba import njit, prange
from scipy.spatial import KDTree
from torch import Tensor

from steindreamer.representations import Cameras, Queryable, TriangleMesh, vertex_normals
from steindreamer.representations.jit import EXACT
from steindreamer.representations.mesh.rasterization import rasterize

from .field import field_color
from .texels import Texels
from .views import Views

_AGREEMENT = 0.06
"""Maximum difference in meters between the depth of an image and of the mesh; beyond it, the image shows another
surface."""


@dataclass(frozen=True)
class Gathered:
    """Values per texel, gathered from the views."""

    color: Float[np.ndarray, "t 3"]
    weight: Float[np.ndarray, " t"]
    """Sum of the view weights; 0: no view shows this texel."""
    ambient_occlusion: Float[np.ndarray, " t"]
    """Ambient occlusion: cosine-weighted fraction of the directions above the surface that are not blocked, in [0,
    1]."""


def gather(mesh: TriangleMesh, texels: Texels, views: Views) -> Gathered:
    """Average each texel's color over the views in which it is visible; head-on views get the largest weights."""
    return _gather(mesh, texels, views.cameras, views.rgb, views.opacity, views.depth, views.solid_level())


def ambient_occlusion(mesh: TriangleMesh, texels: Texels, cameras: Cameras) -> Float[np.ndarray, " t"]:
    """Ambient occlusion per texel from the cameras around a mesh, see `Gathered`."""
    shape = (len(cameras), 1, cameras.height, cameras.width)
    # Without depth no color is gathered.
    rgb, empty = torch.zeros(len(cameras), 3, *shape[2:]), torch.zeros(shape)
    return _gather(mesh, texels, cameras, rgb, empty, empty, 0.5).ambient_occlusion


def _gather(
    mesh: TriangleMesh,
    texels: Texels,
    cameras: Cameras,
    rgb: Float[Tensor, "b 3 h w"],
    opacity: Float[Tensor, "b 1 h w"],
    depth: Float[Tensor, "b 1 h w"],
    solid_level: float,
) -> Gathered:
    drawn = [rasterize(mesh.vertices, mesh.faces, cameras[i]).depth for i in range(len(cameras))]
    surface = torch.cat(drawn)
    count = len(texels.faces)
    color = np.empty((count, 3), np.float32)
    weight, ambient_occlusion = np.empty(count, np.float32), np.empty(count, np.float32)
    assert mesh.normals is not None
    extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    _gather_kernel(
        texels.interpolate(mesh.vertices).astype(np.float32),
        texels.interpolate(mesh.normals).astype(np.float32),
        cameras.world_to_camera.numpy(),
        cameras.position.numpy(),
        cameras.intrinsics.numpy(),
        rgb.contiguous().numpy(),
        opacity[:, 0].contiguous().numpy(),
        depth[:, 0].contiguous().numpy(),
        surface.contiguous().numpy(),
        np.float32(solid_level),
        np.float32(0.006 * extent),
        np.float32(_AGREEMENT),
        color,
        weight,
        ambient_occlusion,
    )
    return Gathered(color, weight, ambient_occlusion)


def bake_color(
    mesh: TriangleMesh, texels: Texels, gathered: Gathered, source: str, field: Queryable | None
) -> UInt8[np.ndarray, "s s 3"]:
    """The base color atlas in sRGB. Texels that no view shows copy the nearest surface point that is visible.

    Args:
        mesh: the unwrapped mesh.
        texels: its texels.
        gathered: the values of the views, used for `renders`.
        source: `renders` or `field`.
        field: the color field; used for `field`, and if no view shows any texel.

    Raises ValueError for an unknown source, a missing field, or if there is no color at all.
    """
    positions = texels.interpolate(mesh.vertices)
    seen = gathered.weight > 0
    if source not in ("renders", "field"):
        raise ValueError(f"unknown color source {source!r}; choose renders or field")
    if source == "field" and field is None:
        raise ValueError("color_source='field' needs a representation with field(points); use color_source='renders'")
    if field is not None and (source == "field" or not seen.any()):
        color = field_color(field, positions)
    elif not seen.any():
        raise ValueError("in no view does the representation cover any part of the mesh")
    else:
        color = np.where(seen[:, None], gathered.color, texels.interpolate(_spread(mesh, texels, gathered)))
    return to_bytes(texels.image(color))


def vertex_colors(mesh: TriangleMesh, views: Views) -> Float[Tensor, "v 3"]:
    """Colors (sRGB) of a mesh's vertices in the images; vertices that no view shows copy their nearest neighbor.

    Raises ValueError if no view shows any vertex.
    """
    faces = mesh.faces.numpy()
    owner = np.zeros(len(mesh.vertices), np.int64)
    owner[faces.ravel()] = np.repeat(np.arange(len(faces)), 3)
    corners = faces[owner]
    places = np.arange(len(corners))
    weights = (corners == places[:, None]).astype(np.float32)
    points = Texels(corners, weights, places, np.zeros_like(places), places[:, None])
    normals = vertex_normals(mesh.vertices, mesh.faces)
    gathered = gather(replace(mesh, normals=normals), points, views)
    if not (gathered.weight > 0).any():
        raise ValueError("in no view does the representation cover any part of the mesh")
    return _spread(mesh, points, gathered)


def _spread(mesh: TriangleMesh, texels: Texels, gathered: Gathered) -> Float[Tensor, "v 3"]:
    """A color per vertex: the mean of the visible texels around it, else the color of the nearest vertex that has
    one.
    """
    count = len(mesh.vertices)
    fraction = texels.weights * np.minimum(gathered.weight, 1)[:, None]
    total = np.bincount(texels.faces.ravel(), fraction.ravel(), count)
    summed = [
        np.bincount(texels.faces.ravel(), (fraction * gathered.color[:, c, None]).ravel(), count) for c in range(3)
    ]
    known = total > 0
    color = np.stack(summed, 1) / np.where(known, total, 1)[:, None]
    if not known.all():
        _, nearest = KDTree(mesh.vertices.numpy()[known]).query(mesh.vertices.numpy()[~known])
        color[~known] = color[known][nearest]
    return torch.from_numpy(color.astype(np.float32))


def to_bytes(image: np.ndarray) -> UInt8[np.ndarray, "h w c"]:
    """Convert values in [0, 1] to 0..255, rounded."""
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


@njit(parallel=True, **EXACT)
@no_type_check
def _gather_kernel(
    positions,
    normals,
    poses,
    eyes,
    intrinsics,
    rgb,
    opacity,
    depth,
    surface,
    level,
    bias,
    agreement,
    color,
    weight,
    ambient_occlusion,
):
    views, _, height, width = rgb.shape
    for t in prange(positions.shape[0]):
        px, py, pz = positions[t, 0], positions[t, 1], positions[t, 2]
        red = green = blue = total = visible = above = 0.0
        for v in range(views):
            ex, ey, ez = eyes[v, 0] - px, eyes[v, 1] - py, eyes[v, 2] - pz
            facing = (normals[t, 0] * ex + normals[t, 1] * ey + normals[t, 2] * ez) / np.sqrt(
                ex * ex + ey * ey + ez * ez
            )
            if facing <= 0.05:
                continue
            above += facing
            pose = poses[v]
            z = pose[2, 0] * px + pose[2, 1] * py + pose[2, 2] * pz + pose[2, 3]
            if z <= 1e-3:
                continue
            x = pose[0, 0] * px + pose[0, 1] * py + pose[0, 2] * pz + pose[0, 3]
            y = pose[1, 0] * px + pose[1, 1] * py + pose[1, 2] * pz + pose[1, 3]
            u = intrinsics[v, 0, 0] * x / z + intrinsics[v, 0, 2] - 0.5
            w = intrinsics[v, 1, 1] * y / z + intrinsics[v, 1, 2] - 0.5
            u0, w0 = int(np.floor(u)), int(np.floor(w))
            if u0 < 0 or w0 < 0 or u0 + 1 >= width or w0 + 1 >= height:
                continue
            a, b = u - u0, w - w0
            # Visible if it is no deeper than the mesh rendered there; a slanted surface needs a larger tolerance.
            room = bias / max(facing, 0.2)
            r = g = bl = weight_sum = hidden = 0.0
            for dw in range(2):
                for du in range(2):
                    fraction = (b if dw else 1 - b) * (a if du else 1 - a)
                    drawn = surface[v, w0 + dw, u0 + du]
                    if drawn > 0 and drawn < z - room:
                        hidden += fraction
                        continue
                    shown = depth[v, w0 + dw, u0 + du]
                    if drawn <= 0 or drawn > z + room or opacity[v, w0 + dw, u0 + du] < level:
                        continue
                    if abs(shown - z) > agreement:
                        continue
                    weight_sum += fraction
                    r += fraction * rgb[v, 0, w0 + dw, u0 + du]
                    g += fraction * rgb[v, 1, w0 + dw, u0 + du]
                    bl += fraction * rgb[v, 2, w0 + dw, u0 + du]
            visible += facing * (1 - hidden)
            if weight_sum > 0.5 and facing > 0.15:
                head_on = facing**4
                red += head_on * r
                green += head_on * g
                blue += head_on * bl
                total += head_on * weight_sum
        weight[t] = total
        ambient_occlusion[t] = visible / above if above > 0 else 1.0
        if total > 0:
            red, green, blue = red / total, green / total, blue / total
        color[t, 0], color[t, 1], color[t, 2] = red, green, blue
