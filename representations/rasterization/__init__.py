"""CPU rasterisation of triangles: visibility (`rasterize`), then perspective-correct interpolation (`interpolate`)."""

from .fragments import Fragments, interpolate, rasterize

__all__ = ["Fragments", "interpolate", "rasterize"]
