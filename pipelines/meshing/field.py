"""Evaluation of a representation's field at points, on the device of its tensors."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from steindreamer.representations import Queryable

from ..devices import device_of

_POINTS_AT_ONCE = 1 << 18


@torch.no_grad()
def field_log_density(field: Queryable, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Log density at world points. Gaussians decay exponentially, so that the logarithm interpolates well."""
    return np.concatenate(
        [field.field(chunk).density.float().clamp_min(1e-8).log().cpu().numpy() for chunk in _chunks(field, points)]
    )


@torch.no_grad()
def field_color(field: Queryable, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Color at world points, sRGB."""
    return np.concatenate([field.field(chunk).color.float().cpu().numpy() for chunk in _chunks(field, points)])


def _chunks(field: Queryable, points: np.ndarray) -> tuple[torch.Tensor, ...]:
    return torch.from_numpy(points.astype(np.float32)).to(device_of(field)).split(_POINTS_AT_ONCE)
