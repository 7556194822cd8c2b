"""Plants."""

from __future__ import annotations

import numpy as np

from ..colors import natural, shade
from ..parts import Color, Part, around, merge
from ..shapes import ellipsoid, lathe, sphere, tube

_LEAF = (0.20, 0.55, 0.20)
_BARK = (0.45, 0.29, 0.16)


def mushroom(color: Color, rng: np.random.Generator) -> Part:
    """A mushroom; the color is that of the cap."""
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
    return merge([lathe(underside, shade(pale, 0.85)), lathe([*cap], color, sides=32), lathe(stem, pale), *spots])


def cactus(color: Color, rng: np.random.Generator) -> Part:
    """A cactus; the color is that of the pot, and the plant is green."""
    green = natural((0.18, 0.55, 0.24), rng)
    height, radius = rng.uniform(0.95, 1.25), 0.27
    angles = np.linspace(0, np.pi / 2, 6)
    dome = [(radius * np.cos(a), 0.6 + height + radius * np.sin(a)) for a in angles]
    trunk = lathe([(0, 0.5), (radius, 0.5), (radius, 0.6 + height * 0.5), *dome], green, sides=24)
    ribs = around(tube([(0, 0.55, radius), (0, 0.6 + height, radius)], 0.05, shade(green, 0.78), sides=6), 8, 22.5)
    pot = lathe(
        [(0, 0), (0.36, 0), (0.45, 0.46), (0.52, 0.46), (0.52, 0.64), (0.42, 0.64), (0.42, 0.56), (0, 0.56)], color
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


def tree(color: Color, rng: np.random.Generator) -> Part:
    """A tree; the color is that of the leaves."""
    height, crown = rng.uniform(0.75, 1.0), rng.uniform(0.52, 0.62)
    bark = natural(_BARK, rng)
    trunk = lathe([(0, 0), (0.3, 0), (0.2, 0.12), (0.15, height * 0.5), (0.15, height + 0.2), (0, height + 0.2)], bark)
    branch = tube([(0, height * 0.6, 0), (0.4, height + 0.05, 0)], [0.1, 0.07], bark).turned("y", rng.uniform(0, 360))
    leaves, count = [sphere(crown, color, (0, height + crown * 1.35, 0))], 5
    for index in range(count):
        size = crown * rng.uniform(0.68, 0.85)
        leaf = sphere(
            size, shade(color, rng.uniform(0.86, 1.08)), (0, height + crown * rng.uniform(0.5, 0.85), crown * 0.8)
        )
        leaves.append(leaf.turned("y", 360 * (index + rng.uniform(-0.2, 0.2)) / count))
    return merge([trunk, branch, *leaves])


def pine_tree(color: Color, rng: np.random.Generator) -> Part:
    """A pine tree; the color is that of the needles."""
    tiers, width, height = int(rng.integers(3, 5)), rng.uniform(0.62, 0.76), rng.uniform(1.5, 1.8)
    trunk = lathe([(0, 0), (0.19, 0), (0.14, 0.64), (0, 0.64)], natural(_BARK, rng))
    step = height / (tiers + 0.7)
    cones = []
    for tier in range(tiers):
        radius = width * (1 - 0.72 * tier / tiers)
        needles = shade(color, 0.88 + 0.2 * tier / tiers)
        skirt = lathe(
            [(0, 0.1), (radius * 0.6, 0.08), (radius, 0), (radius * 0.55, step * 0.72), (0, step * 1.7)],
            needles,
            sides=18,
        )
        cones.append(skirt.moved(y=0.5 + tier * step))
    return merge([trunk, *cones])


def tulip(color: Color, rng: np.random.Generator) -> Part:
    """A tulip; the color is that of the petals."""
    height, size = rng.uniform(1.0, 1.25), rng.uniform(0.36, 0.44)
    green = natural(_LEAF, rng)
    petal = ellipsoid((0.68 * size, 1.12 * size, 0.24 * size), color, (0, size, 0), rings=10, sides=14)
    inner = ellipsoid((0.68 * size, 1.08 * size, 0.24 * size), shade(color, 0.8), (0, size, 0), rings=10, sides=14)
    lean, turn = rng.uniform(8, 16), rng.uniform(0, 120)
    flower = merge([
        around(petal.turned("x", lean).moved(z=0.42 * size), 3, turn),
        around(inner.turned("x", lean - 4).moved(z=0.36 * size), 3, turn + 60),
        sphere(0.5 * size, shade(color, 0.9), (0, 0.28 * size, 0), rings=8, sides=14),
    ])  # fmt: skip
    leaf = ellipsoid((0.15, 0.5, 0.055), shade(green, 0.9), (0, 0.46, 0), rings=10, sides=12)
    right = leaf.scaled(1, rng.uniform(0.85, 1.1), 1).turned("x", 26).turned("y", 90)
    left = leaf.scaled(1, rng.uniform(0.7, 0.95), 1).turned("x", 34).turned("y", -90)
    return merge([tube([(0, 0.03, 0), (0, height, 0)], 0.065, green), flower.moved(y=height - 0.08), right, left])
