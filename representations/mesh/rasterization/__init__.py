"""Rasterization of triangles.

`rasterize`, `interpolate` and `resolve` are forward-only and run on the CPU. `draw` is differentiable, with several
backends.
"""

from .dispatch import BACKENDS, check_backend, draw
from .fragments import NEAR, Fragments, interpolate, rasterize, resolve
from .raster import Raster

__all__ = ["BACKENDS", "NEAR", "Fragments", "Raster", "check_backend", "draw", "interpolate", "rasterize", "resolve"]
