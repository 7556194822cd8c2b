"""CPU rasterisation of triangles: visibility (`rasterize`), then perspective-correct values at the pixels."""

from .fragments import Fragments, interpolate, rasterize, resolve

__all__ = ["Fragments", "interpolate", "rasterize", "resolve"]
