"""Texture coordinates in other programs' direction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def flip_v(uvs: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Between v growing downwards (ours, glTF) and upwards (PyTorch3D)."""
    return torch.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)
