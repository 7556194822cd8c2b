"""Forward-only rasterization: the visible triangle of each pixel, and interpolation of vertex attributes."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from ...cameras import Cameras
from ..compiled import face_array
from .kernels import interpolate_kernel, rasterize_kernel, resolve_kernel

NEAR = 0.01
"""Near plane in meters; a triangle with a nearer vertex is dropped."""
_SUBPIXELS = 4096


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle at every pixel center."""

    triangle: Int32[Tensor, "b h w"]
    """Index of the face; -1 where empty."""
    barycentrics: Float[Tensor, "b h w 3"]
    """Perspective-correct weights of the triangle's vertices, summing to 1; 0 where empty."""
    depth: Float[Tensor, "b h w"]
    """Depth along z in meters; 0 where empty."""
    front: Bool[Tensor, "b h w"]
    """Whether the outer side (counter-clockwise winding) of the triangle is visible; False where empty."""


def rasterize(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], cameras: Cameras, *, near: float = NEAR
) -> Fragments:
    """Find the nearest triangle at every pixel center, from both sides, without gradient.

    Neighboring triangles leave no gap (edge tests are exact), and the bits do not depend on the number of threads; at
    equal depth the lower index wins. Triangles are not clipped: one with a vertex nearer than `near` is dropped, so
    cameras should be outside the object.

    Args:
        vertices: World positions in meters.
        faces: Vertex indices.
        cameras: The cameras.
        near: Near plane in meters.

    Raises:
        ValueError: A face refers to a vertex that does not exist.

    Example:
        >>> fragments = rasterize(mesh.vertices, mesh.faces, cameras)
        >>> colors = interpolate(fragments, mesh.faces, mesh.colors)
    """
    check_faces(faces, len(vertices))
    pixels, depth = cameras.project(vertices.detach())
    screen = torch.cat([snap(pixels), depth[..., None]], -1)
    return rasterize_screen(screen, faces, cameras.height, cameras.width, near=near)


def check_faces(faces: Int64[Tensor, "f 3"], count: int) -> None:
    """Check vertex indices. Raises ValueError if a face refers to a vertex that does not exist."""
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < count:
        raise ValueError(f"faces index vertices {int(faces.min())}..{int(faces.max())}, but there are {count}")


def snap(pixels: Float[Tensor, "b v 2"]) -> Float[Tensor, "b v 2"]:
    """Round pixel coordinates to a fixed subpixel grid.

    On the grid, the float64 edge functions of the rasterizers are exact, hence watertight between neighbors.
    """
    return (pixels * _SUBPIXELS).round() / _SUBPIXELS


def rasterize_screen(
    screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], height: int, width: int, *, near: float = NEAR
) -> Fragments:
    """`rasterize` for screen-space vertices: pixel x and y, rounded by `snap`, and z-depth in meters."""
    device = screen.device
    screen = screen.detach().float().cpu().contiguous()
    size = (len(screen), height, width)
    triangle = np.empty(size, np.int32)
    barycentrics = np.empty((*size, 3), np.float32)
    z = np.empty(size, np.float32)
    front = np.empty(size, np.bool_)
    # Every image is split into interleaved rows, so that a single image also uses all threads.
    stripes = -(-numba.get_num_threads() // max(len(screen), 1))
    rasterize_kernel(screen.numpy(), face_array(faces), near, stripes, triangle, barycentrics, z, front)
    arrays = (triangle, barycentrics, z, front)
    return Fragments(*(torch.from_numpy(array).to(device) for array in arrays))


def interpolate(
    fragments: Fragments, faces: Int64[Tensor, "f 3"], attributes: Float[Tensor, "v c"]
) -> Float[Tensor, "b c h w"]:
    """Interpolate vertex attributes at every pixel, perspective-correct, without gradient; 0 where empty."""
    batch, height, width = fragments.triangle.shape
    out = np.empty((batch, attributes.shape[1], height, width), np.float32)
    interpolate_kernel(*_arrays(fragments, faces, attributes), out)
    return torch.from_numpy(out).to(attributes.device)


def resolve(
    fragments: Fragments,
    faces: Int64[Tensor, "f 3"],
    attributes: Float[Tensor, "v c"],
    background: Float[Tensor, "b c"],
    samples: int,
) -> Float[Tensor, "b c rows columns"]:
    """Interpolate vertex attributes, composite over a background, and average blocks of fragments; without gradient.

    It equals `interpolate`, compositing and average pooling, at half the cost.

    Args:
        fragments: The fragments.
        faces: Vertex indices.
        attributes: Vertex attributes.
        background: Attributes of the background of each camera.
        samples: Side of a block; it must divide the height and width of the fragments.
    """
    batch, height, width = fragments.triangle.shape
    out = np.empty((batch, attributes.shape[1], height // samples, width // samples), np.float32)
    resolve_kernel(*_arrays(fragments, faces, attributes), _floats(background), out)
    return torch.from_numpy(out).to(attributes.device)


def _arrays(
    fragments: Fragments, faces: Int64[Tensor, "f 3"], attributes: Float[Tensor, "v c"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    triangle, barycentrics = (tensor.cpu().numpy() for tensor in (fragments.triangle, fragments.barycentrics))
    return triangle, barycentrics, face_array(faces), _floats(attributes)


def _floats(values: Float[Tensor, "_ _"]) -> np.ndarray:
    return values.detach().float().cpu().contiguous().numpy()
