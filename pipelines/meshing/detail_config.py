"""Settings of the levels of detail and the collider of an asset."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

from annotated_types import Interval

MAX_LODS = 8


@dataclass
class DetailConfig:
    """Levels of detail and colliders."""

    lods: list[Annotated[float, Interval(gt=0, le=1)]] = field(default_factory=lambda: [1.0, 0.5, 0.25, 0.1])
    """Levels of detail, as fractions of the triangles of the first, which is 1; [1]: only one."""
    hulls: Annotated[int, Interval(ge=0, le=64)] = 7
    """Maximum number of convex hulls of the collider; 0: no collider."""
    hull_vertices: Annotated[int, Interval(ge=4, le=256)] = 32
    """Maximum number of vertices of a hull."""
    concavity: Annotated[float, Interval(ge=0.01, le=1)] = 0.1
    """Concavity up to which a part is one hull; smaller values give more hulls."""

    def check_lods(self) -> None:
        """Raises ValueError unless the levels are fractions that fall from 1."""
        ratios = self.lods
        if not 1 <= len(ratios) <= MAX_LODS or ratios[0] != 1:
            raise ValueError(
                f"lods is {list(ratios)}; 1 to {MAX_LODS} fractions are accepted, from 1 down, such as [1,0.5]"
            )
        if any(finer <= coarser for finer, coarser in pairwise(ratios)):
            raise ValueError(f"lods is {list(ratios)}; each must be smaller than the one before it")
