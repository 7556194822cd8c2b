"""The choice of the backend."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from jaxtyping import Float, Int64
from torch import Tensor

from ..cameras import Cameras
from .cpu import CpuRaster
from .fragments import check_faces
from .nvdiffrast import NvdiffrastRaster
from .pytorch3d import Pytorch3dRaster
from .raster import Raster, to_screen
from .twin import TorchRaster

BACKENDS: dict[str, Callable[..., Raster]] = {
    "cpu": CpuRaster,
    "torch": TorchRaster,
    "nvdiffrast": NvdiffrastRaster,
    "pytorch3d": Pytorch3dRaster,
}


def draw(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], cameras: Cameras, *, backend: str = "auto"
) -> Raster:
    """Triangles seen by every camera, both sides drawn; differentiable, see `Raster`.

    backend: `cpu` (compiled, CPU tensors), `torch` (readable, any device, any precision), `nvdiffrast` (CUDA tensors;
    optional package, licensed for non-commercial use only), `pytorch3d` (optional package), or `auto`: `cpu` for CPU
    tensors; on CUDA `nvdiffrast` if it is installed, else `torch`.

    Nothing is clipped: a triangle is dropped if any of its vertices is nearer than `NEAR` metres.

    Raises ValueError if `faces` names a vertex that does not exist, and for an unknown backend, or one that the
    tensors' device or the installation does not allow.
    """
    check_backend(backend)
    check_faces(faces, len(vertices))
    name = _automatic(vertices) if backend == "auto" else backend
    if name == "nvdiffrast" and vertices.is_cuda and len(faces) == 0:
        # nvdiffrast refuses to draw nothing.
        name = "torch"
    return BACKENDS[name](to_screen(vertices, cameras), faces, (cameras.height, cameras.width))


def check_backend(backend: str) -> None:
    """Raises ValueError for a name that is neither `auto` nor a key of `BACKENDS`."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown rasterisation backend {backend!r}; choose one of {['auto', *BACKENDS]}")


def _automatic(tensor: Tensor) -> str:
    # The package can be installed without a CUDA device: the tensors decide first.
    if not tensor.is_cuda:
        return "cpu"
    return "nvdiffrast" if find_spec("nvdiffrast") else "torch"
