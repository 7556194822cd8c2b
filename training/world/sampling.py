"""From a caption to a mesh."""

from __future__ import annotations

import numpy as np
import torch

from ...representations import TriangleMesh
from .captions import Caption
from .colours import COLOURS, natural
from .kinds import KINDS

RADIUS = 0.9
"""Metres from the origin to the farthest vertex of every object."""


def sample_object(caption: Caption, rng: np.random.Generator) -> TriangleMesh:
    """One object of the caption's kind; sizes, proportions, optional parts and shades come from `rng`.

    Centred by its bounding box, the farthest vertex at radius 0.9, +Y up, its front facing +Z.
    """
    part = KINDS[caption.kind].build(natural(COLOURS[caption.colour], rng), rng)
    vertices = part.vertices - (part.vertices.min(0) + part.vertices.max(0)) / 2
    vertices *= RADIUS / np.linalg.norm(vertices, axis=1).max()
    return TriangleMesh(
        torch.from_numpy(vertices.astype(np.float32)),
        torch.from_numpy(np.ascontiguousarray(part.faces)),
        torch.from_numpy(part.normals.astype(np.float32)),
        torch.from_numpy(part.colours.astype(np.float32)),
    )
