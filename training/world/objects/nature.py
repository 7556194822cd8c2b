"""Plants."""

from __future__ import annotations

import numpy as np

from ..colours import mix, natural, shade
from ..parts import Colour, Part, around, both_sides, merge
from ..shapes import ellipsoid, lathe, sphere, tube

_LEAF = (0.20, 0.55, 0.20)
_BARK = (0.45, 0.29, 0.16)


def mushroom(colour: Colour, rng: np.random.Generator) -> Part:
    """The colour is its cap's."""
    height, radius = rng.uniform(0.7, 0.95), rng.uniform(0.75, 0.92)
    rise = radius * rng.uniform(0.65, 0.85)
    pale = natural((0.95, 0.93, 0.88), rng, 0.02)
    angles = np.linspace(0, np.pi / 2, 9)
    cap = [(radius * np.cos(a), height + rise * np.sin(a)) for a in angles]
    underside = [(0, height - 0.02), (radius * 0.9, height - 0.1), (radius, height)]
    stem = [(0, 0), (0.3, 0), (0.34, 0.1), (0.25, height * 0.6), (0.27, height), (0, height)]
    spots, turn = [], rng.uniform(0, 360)
    for count, polar, size in ((1, 0.0, 0.2), (5, 0.72, 0.19), (8, 1.22, 0.14)):
        spot = sphere(1, np.array((0.97, 0.96, 0.93)), rings=6, sides=12).scaled(size, 0.05, size)
        slope = (np.sin(polar) / radius, np.cos(polar) / rise)
        spot = spot.pointing(0, slope[1], slope[0]).moved(0, height + rise * np.cos(polar), radius * np.sin(polar))
        spots.append(around(spot, count, turn + 20 * count))
    return merge([lathe(underside, shade(pale, 0.85)), lathe([*cap], colour, sides=32), lathe(stem, pale), *spots])


def cactus(colour: Colour, rng: np.random.Generator) -> Part:
    """The colour is its pot's; the plant is green."""
    green = natural((0.18, 0.55, 0.24), rng)
    height, radius = rng.uniform(0.95, 1.25), 0.27
    angles = np.linspace(0, np.pi / 2, 6)
    dome = [(radius * np.cos(a), 0.6 + height + radius * np.sin(a)) for a in angles]
    trunk = lathe([(0, 0.5), (radius, 0.5), (radius, 0.6 + height * 0.5), *dome], green, sides=24)
    ribs = around(tube([(0, 0.55, radius), (0, 0.6 + height, radius)], 0.05, shade(green, 0.78), sides=6), 8, 22.5)
    pot = lathe(
        [(0, 0), (0.36, 0), (0.45, 0.46), (0.52, 0.46), (0.52, 0.64), (0.42, 0.64), (0.42, 0.56), (0, 0.56)], colour
    )
    parts = [trunk, ribs, pot, lathe([(0, 0.5), (0.43, 0.5), (0.43, 0.59), (0, 0.6)], natural((0.33, 0.22, 0.14), rng))]
    for side in (-1, 1):
        low, tip = 0.6 + height * rng.uniform(0.25, 0.5), rng.uniform(0.3, 0.5)
        bend = [(0.15, 0), (0.42, 0.0), (0.54, 0.06), (0.58, 0.18), (0.58, 0.18 + tip)]
        parts.append(tube([(side * x, low + y, 0) for x, y in bend], 0.15, shade(green, 0.95)))
    if rng.random() < 0.6:
        petal = ellipsoid((0.08, 0.05, 0.14), natural((0.95, 0.45, 0.65), rng), (0, 0, 0.12), rings=6, sides=10)
        parts.append(around(petal.turned("x", -25), 5).moved(0, 0.6 + height + radius, 0))
    return merge(parts)
