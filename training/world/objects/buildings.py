"""Buildings; their doors face +Z."""

from __future__ import annotations

import numpy as np

from ..colours import natural, shade
from ..parts import Colour, Part, around, merge
from ..shapes import box, cone, cylinder, extrude, lathe

_STONE = (0.72, 0.69, 0.64)
_DOOR = (0.36, 0.21, 0.11)
_DARK = np.array((0.16, 0.15, 0.17))


def _archway(width: float, height: float, depth: float, colour: Colour) -> Part:
    """A round-topped door or window standing on y = 0, centred on z = 0."""
    angles = np.linspace(0, np.pi, 9)
    radius = width / 2
    top = [(radius * np.cos(a), height - radius + radius * np.sin(a)) for a in angles]
    return extrude([(-radius, 0), (radius, 0), *top], depth, colour)


def castle(colour: Colour, rng: np.random.Generator) -> Part:
    """The colour is its roofs'."""
    stone = natural(_STONE, rng)
    half, wall, tower = 0.72, rng.uniform(0.6, 0.75), rng.uniform(1.05, 1.3)
    radius, roof = rng.uniform(0.24, 0.29), rng.uniform(0.5, 0.65)
    battlement = merge(box((0.17, 0.16, 0.17), stone, (x, wall + 0.07, half)) for x in (-0.3, 0, 0.3))
    side = merge([box((2 * half, wall, 0.16), stone, (0, wall / 2, half), bevel=0.05), battlement])
    corner = merge([
        cylinder(radius, tower, shade(stone, 1.06)),
        cone(radius * 1.35, roof, colour).moved(y=tower),
        _archway(0.13, 0.26, 0.06, _DARK).moved(0, tower * 0.68, radius),
    ]).turned("y", 45).moved(half, 0, half)  # fmt: skip
    keep = tower * rng.uniform(1.0, 1.12)
    return merge([
        around(side, 4), around(corner, 4),
        box((0.72, keep, 0.72), shade(stone, 0.94), (0, keep / 2, 0), bevel=0.05),
        cone(0.62, roof * 1.15, colour, sides=4).turned("y", 45).moved(y=keep),
        around(_archway(0.15, 0.28, 0.06, _DARK).moved(0, keep * 0.74, 0.36), 4),
        _archway(0.36, 0.46, 0.08, natural(_DOOR, rng)).moved(0, 0, half + 0.08),
        box((2 * half, 0.06, 2 * half), natural((0.45, 0.55, 0.35), rng), (0, 0.03, 0)),
    ])  # fmt: skip
