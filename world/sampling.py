"""Sampling of an object's mesh for a caption."""

from __future__ import annotations

import numpy as np
import torch

from steindreamer.representations import TriangleMesh

from .captions import Caption
from .colors import COLORS, natural
from .kinds import KINDS

RADIUS = 0.9
"""Distance from the origin to the farthest vertex of every object, in meters."""


def sample_object(caption: Caption, rng: np.random.Generator) -> TriangleMesh:
    """Sample an object of the caption's kind; `rng` determines sizes, proportions, optional parts and shades.

    The bounding box is centered, the farthest vertex is at radius 0.9 m, +Y is up, and the front faces +Z.
    """
    part = KINDS[caption.kind].build(natural(COLORS[caption.color], rng), rng)
    vertices = part.vertices - (part.vertices.min(0) + part.vertices.max(0)) / 2
    vertices *= RADIUS / np.linalg.norm(vertices, axis=1).max()
    return TriangleMesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(np.ascontiguousarray(part.faces)),
        torch.from_numpy(part.normals.astype(np.float32)),
        torch.from_numpy(part.colors.astype(np.float32)),
    )
