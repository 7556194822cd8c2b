"""Toy animals; they look at +Z."""

from __future__ import annotations

import numpy as np

from ..colours import mix, natural, shade
from ..parts import Colour, Part, around, both_sides, merge
from ..shapes import arc, box, cone, cylinder, ellipsoid, extrude, lathe, sphere, torus, tube

_EYE = np.array((0.06, 0.06, 0.07))
_BEAK = (0.95, 0.50, 0.08)
_WHITE = np.array((0.96, 0.96, 0.94))


def _eyes(spread: float, height: float, front: float, radius: float = 0.06) -> Part:
    return both_sides(sphere(radius, _EYE, (spread, height, front), rings=6, sides=10))


def duck(colour: Colour, rng: np.random.Generator) -> Part:
    plump, head = rng.uniform(0.92, 1.1), rng.uniform(0.35, 0.42)
    neck = 0.75 + head * 0.75
    beak = natural(_BEAK, rng)
    wing = ellipsoid((0.12, 0.26, 0.42), shade(colour, 0.88), rings=8).turned("x", 14).moved(0.5 * plump, 0.52, -0.12)
    return merge([
        ellipsoid((0.54 * plump, 0.46, 0.76), colour, (0, 0.44, 0)),
        sphere(head, colour, (0, neck, 0.36)),
        cone(0.3, 0.5, colour).pointing(0, 0.75, -1).moved(0, 0.56, -0.5),
        ellipsoid((0.19, 0.055, 0.22), beak, (0, neck - 0.02, 0.36 + head), rings=8, sides=14),
        ellipsoid((0.15, 0.05, 0.16), shade(beak, 0.85), (0, neck - 0.09, 0.34 + head), rings=8, sides=14),
        _eyes(head * 0.42, neck + head * 0.38, 0.36 + head * 0.8, 0.07),
        both_sides(wing),
    ])  # fmt: skip
