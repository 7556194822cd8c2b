"""Which triangle each pixel sees, and vertex attributes carried to the pixels. Forward only, any number of cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from torch import Tensor

from ..cameras import Cameras
from .kernels import interpolate_kernel, rasterize_kernel, resolve_kernel

NEAR = 0.01
"""Metres; a triangle with a nearer vertex is not drawn."""
_SUBPIXELS = 4096


@dataclass(frozen=True)
class Fragments:
    """The nearest triangle behind every pixel centre."""

    triangle: Int32[Tensor, "b h w"]
    """Index into `faces`; -1 where empty."""
    barycentrics: Float[Tensor, "b h w 3"]
    """Perspective-correct weights of the triangle's vertices, summing to 1; 0 where empty."""
    depth: Float[Tensor, "b h w"]
    """z-depth in metres; 0 where empty."""
    front: Bool[Tensor, "b h w"]
    """Whether the triangle's outer side (counter-clockwise winding) is seen; False where empty."""


def rasterize(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], cameras: Cameras, *, near: float = NEAR
) -> Fragments:
    """Nearest triangle at every pixel centre, both sides of every triangle drawn.

    Neighbouring triangles leave no gap (edge tests are exact) and the bits do not depend on the number of threads; at
    equal depth the lower index wins. Nothing is clipped: a triangle is dropped if any of its vertices is nearer than
    `near` metres, so keep cameras outside the object. Carries no gradient.

    Raises ValueError if `faces` names a vertex that does not exist.
    """
    check_faces(faces, len(vertices))
    pixels, depth = cameras.project(vertices.detach())
    screen = torch.cat([snap(pixels), depth[..., None]], -1)
    return rasterize_screen(screen, faces, cameras.height, cameras.width, near=near)


def check_faces(faces: Int64[Tensor, "f 3"], count: int) -> None:
    """Raises ValueError if `faces` names a vertex that does not exist."""
    if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < count:
        raise ValueError(f"faces index vertices {int(faces.min())}..{int(faces.max())}, but there are {count}")


def snap(pixels: Float[Tensor, "b v 2"]) -> Float[Tensor, "b v 2"]:
    """The nearest points of a fixed grid of sub-pixels.

    There the float64 edge functions of the rasterisers are exact, hence watertight between neighbours.
    """
    return (pixels * _SUBPIXELS).round() / _SUBPIXELS


def rasterize_screen(
    screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], height: int, width: int, *, near: float = NEAR
) -> Fragments:
    """`rasterize` for vertices on the screen: pixel x and y, from `snap`, and z-depth in metres."""
    device = screen.device
    screen = screen.detach().float().cpu().contiguous()
    size = (len(screen), height, width)
    triangle = np.empty(size, np.int32)
    barycentrics = np.empty((*size, 3), np.float32)
    z = np.empty(size, np.float32)
    front = np.empty(size, np.bool_)
    # Every camera is cut into interleaved rows so that a single camera keeps all threads busy too.
    stripes = -(-numba.get_num_threads() // max(len(screen), 1))
    rasterize_kernel(screen.numpy(), face_array(faces), near, stripes, triangle, barycentrics, z, front)
    arrays = (triangle, barycentrics, z, front)
    return Fragments(*(torch.from_numpy(array).to(device) for array in arrays))


def interpolate(
    fragments: Fragments, faces: Int64[Tensor, "f 3"], attributes: Float[Tensor, "v c"]
) -> Float[Tensor, "b c h w"]:
    """Vertex attributes at every pixel, perspective-correct; 0 where empty. Carries no gradient."""
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
    """Vertex attributes over a background, averaged over `samples` x `samples` fragments; no gradient.

    Equal to `interpolate`, compositing and averaging, at half the cost. `samples` must divide the fragments' size.
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


def face_array(faces: Int64[Tensor, "f 3"]) -> np.ndarray:
    return faces.to("cpu", torch.int32).contiguous().numpy()
