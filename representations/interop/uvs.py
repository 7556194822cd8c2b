"""Conversion of texture coordinates between libraries."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def flip_v(uvs: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Convert texture coordinates between v pointing down (ours, glTF) and v pointing up (PyTorch3D)."""
    return torch.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)
