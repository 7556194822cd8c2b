"""Differentiable splatting of 3D Gaussians: one function, three interchangeable backends."""

from .dispatch import BACKENDS, check_backend, splat
from .field import gaussian_field
from .semantics import SplatOutput

__all__ = ["BACKENDS", "SplatOutput", "check_backend", "gaussian_field", "splat"]
