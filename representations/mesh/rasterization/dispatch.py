"""`draw`: differentiable rasterization of triangles with a choice of backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from ...backends import check_known, chosen
from ...cameras import Cameras
from .cpu import CpuRaster
from .fragments import check_faces
from .nvdiffrast import NvdiffrastRaster
from .pytorch3d import Pytorch3dRaster
from .raster import Raster, to_screen
from .reference import TorchRaster

Backend = Literal["auto", "cpu", "torch", "nvdiffrast", "pytorch3d"]
"""See `draw`."""

BACKENDS: dict[str, Callable[..., Raster]] = {
    "cpu": CpuRaster,
    "torch": TorchRaster,
    "nvdiffrast": NvdiffrastRaster,
    "pytorch3d": Pytorch3dRaster,
}


def draw(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], cameras: Cameras, *, backend: str = "auto"
) -> Raster:
    """Rasterize triangles for every camera, from both sides, differentiably; see `Raster`.

    Triangles are not clipped: one with a vertex nearer than `NEAR` meters is dropped.

    Args:
        vertices: World positions in meters.
        faces: Vertex indices.
        cameras: The cameras.
        backend: `cpu` (compiled, CPU tensors), `torch` (reference implementation; any device and precision),
            `nvdiffrast` (CUDA tensors; optional package, licensed for non-commercial use only), `pytorch3d` (optional
            package), or `auto`: `cpu` for CPU tensors; on CUDA `nvdiffrast` if it is installed, else `torch`.

    Raises:
        ValueError: A face refers to a vertex that does not exist, or the backend is unknown, not installed, or does not
            support the device of the tensors.

    Example:
        >>> raster = draw(mesh.vertices, mesh.faces, Cameras.orbit([0.0], [15.0]))
        >>> colors_and_depth = raster.values(mesh.colors)
    """
    check_backend(backend)
    check_faces(faces, len(vertices))
    name = chosen(backend, vertices, "nvdiffrast")
    if name == "nvdiffrast" and vertices.is_cuda and len(faces) == 0:
        # nvdiffrast raises for a mesh without faces.
        name = "torch"
    return BACKENDS[name](to_screen(vertices, cameras), faces, (cameras.height, cameras.width))


def check_backend(backend: str) -> None:
    """Check the name of a backend. Raises ValueError if it is neither `auto` nor a key of `BACKENDS`."""
    check_known("rasterization", backend, BACKENDS)
