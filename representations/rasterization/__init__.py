"""Rasterisation of triangles.

Forward only, on the CPU: visibility (`rasterize`), then perspective-correct values at the pixels. Differentiable, with
several backends: `draw`.
"""

from .dispatch import BACKENDS, check_backend, draw
from .fragments import NEAR, Fragments, interpolate, rasterize, resolve
from .raster import Raster

__all__ = ["BACKENDS", "NEAR", "Fragments", "Raster", "check_backend", "draw", "interpolate", "rasterize", "resolve"]
