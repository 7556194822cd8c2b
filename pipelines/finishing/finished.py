"""A finished asset before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from steindreamer.representations import TriangleMesh

from .bake import BakedMaterial
from .colliders import Collider
from .lods import Level
from .naming import Names
from .placing import Frame


@dataclass(frozen=True)
class Look:
    """A mesh with its textures."""

    mesh: TriangleMesh
    """A mesh with normals and uvs."""
    material: BakedMaterial
    lightmap: Float[np.ndarray, "v 2"] | None
    """Lightmap coordinates of the vertices."""

    def textured(self) -> TriangleMesh:
        """The mesh with its color as a texture."""
        return replace(self.mesh, texture=torch.from_numpy(self.material.base_color).permute(2, 0, 1).float() / 255)


@dataclass(frozen=True)
class Finished:
    """A finished asset before it is written."""

    names: Names
    frame: Frame
    levels: Sequence[Level]
    """The levels of detail."""
    looks: Sequence[Look]
    """The meshes and textures of the levels; those with one atlas share their vertices and their material."""
    collider: Collider | None
    extras: dict[str, Any]
    """JSON values for the file."""

    def materials(self, levels: Sequence[int] | None = None) -> dict[int, BakedMaterial]:
        """The materials of some levels (default: all), by the first level that has each."""
        chosen = range(len(self.levels)) if levels is None else levels
        return {first: self.looks[first].material for first in map(self.first_with, chosen)}

    def first_with(self, level: int) -> int:
        """The first level that has the material of a level."""
        return next(i for i, look in enumerate(self.looks) if look.material is self.looks[level].material)
