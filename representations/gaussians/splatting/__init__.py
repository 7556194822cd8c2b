"""Differentiable splatting of 3D Gaussians: one function, three interchangeable backends."""

from .dispatch import BACKENDS, Backend, check_backend, splat
from .field import gaussian_field
from .semantics import BLUR, MAX_ALPHA, MIN_ALPHA, SplatOutput

__all__ = [
    "BACKENDS",
    "BLUR",
    "MAX_ALPHA",
    "MIN_ALPHA",
    "Backend",
    "SplatOutput",
    "check_backend",
    "gaussian_field",
    "splat",
]
