"""Buildings, with doors facing +Z."""

from __future__ import annotations

import numpy as np

from ..colors import natural, shade
from ..parts import Color, Part, around, both_sides, merge
from ..shapes import box, cone, cylinder, extrude, lathe, sphere, torus

_STONE = (0.72, 0.69, 0.64)
_DOOR = (0.36, 0.21, 0.11)
_DARK = np.array((0.16, 0.15, 0.17))


def _archway(width: float, height: float, depth: float, color: Color) -> Part:
    """Door or window with a round top, standing on y = 0 and centered on z = 0."""
    angles = np.linspace(0, np.pi, 9)
    radius = width / 2
    top = [(radius * np.cos(a), height - radius + radius * np.sin(a)) for a in angles]
    return extrude([(-radius, 0), (radius, 0), *top], depth, color)


def castle(color: Color, rng: np.random.Generator) -> Part:
    """A castle; the color is that of the roofs."""
    stone = natural(_STONE, rng)
    half, wall, tower = 0.72, rng.uniform(0.6, 0.75), rng.uniform(1.05, 1.3)
    radius, roof = rng.uniform(0.24, 0.29), rng.uniform(0.5, 0.65)
    battlement = merge(box((0.17, 0.16, 0.17), stone, (x, wall + 0.07, half)) for x in (-0.3, 0, 0.3))
    side = merge([box((2 * half, wall, 0.16), stone, (0, wall / 2, half), bevel=0.05), battlement])
    corner = merge([
        cylinder(radius, tower, shade(stone, 1.06)),
        cone(radius * 1.35, roof, color).moved(y=tower),
        _archway(0.13, 0.26, 0.06, _DARK).moved(0, tower * 0.68, radius),
    ]).turned("y", 45).moved(half, 0, half)  # fmt: skip
    keep = tower * rng.uniform(1.0, 1.12)
    return merge([
        around(side, 4), around(corner, 4),
        box((0.72, keep, 0.72), shade(stone, 0.94), (0, keep / 2, 0), bevel=0.05),
        cone(0.62, roof * 1.15, color, sides=4).turned("y", 45).moved(y=keep),
        around(_archway(0.15, 0.28, 0.06, _DARK).moved(0, keep * 0.74, 0.36), 4),
        _archway(0.36, 0.46, 0.08, natural(_DOOR, rng)).moved(0, 0, half + 0.08),
        box((2 * half, 0.06, 2 * half), natural((0.45, 0.55, 0.35), rng), (0, 0.03, 0)),
    ])  # fmt: skip


def _window(width: float, height: float, glass: Color) -> Part:
    """Framed window, centered on the origin and facing +Z."""
    frame = np.array((0.95, 0.95, 0.93))
    bars = [box((0.04, height, 0.1), frame), box((width, 0.04, 0.1), frame)]
    return merge([box((width + 0.1, height + 0.1, 0.06), frame), box((width, height, 0.08), glass), *bars])


def house(color: Color, rng: np.random.Generator) -> Part:
    """A house; the color is that of the roof, and the gables are on the left and right."""
    width, depth, wall = rng.uniform(1.3, 1.6), rng.uniform(1.05, 1.2), rng.uniform(0.85, 1.0)
    rise, eaves = rng.uniform(0.48, 0.62), 0.14
    plaster, glass = natural((0.93, 0.87, 0.74), rng, 0.05), natural((0.55, 0.76, 0.90), rng)
    half = depth / 2 + eaves
    slope = rise / (depth / 2)
    low = wall - eaves * slope
    roof = [(-half, low), (half, low), (half, low + 0.1), (0, wall + rise + 0.12), (-half, low + 0.1)]
    gable = [(-depth / 2, 0), (depth / 2, 0), (depth / 2, wall), (0, wall + rise), (-depth / 2, wall)]
    window = _window(0.24, 0.26, glass)
    door_x = width * 0.2 * rng.choice([-1.0, 1.0])
    chimney = box((0.2, 0.6, 0.2), natural((0.62, 0.30, 0.24), rng), (width * 0.28, wall + rise * 0.85, -depth * 0.15))
    parts = [
        extrude(gable, width, plaster).turned("y", 90),
        extrude(roof, width + 0.26, color).turned("y", 90),
        box((0.3, 0.5, 0.1), natural(_DOOR, rng), (door_x, 0.25, depth / 2)),
        window.moved(-door_x, wall * 0.58, depth / 2),
        chimney,
        both_sides(window.turned("y", 90).moved(width / 2, wall * 0.6, 0)),
        *(window.turned("y", 180).moved(x, wall * 0.58, -depth / 2) for x in (-width * 0.22, width * 0.22)),
        box((width + 0.3, 0.06, depth + 0.3), natural((0.42, 0.58, 0.32), rng), (0, -0.03, 0)),
    ]
    return merge(parts)


def lighthouse(color: Color, rng: np.random.Generator) -> Part:
    """A lighthouse with bands of the color and white, and a door at the front."""
    height, low, high = rng.uniform(1.7, 2.0), rng.uniform(0.42, 0.5), rng.uniform(0.27, 0.31)
    white, count = natural((0.95, 0.95, 0.93), rng, 0.02), 5
    bands = []
    for index in range(count):
        ends = [(low + (high - low) * s, 0.2 + height * s) for s in (index / count, (index + 1) / count)]
        bands.append(lathe(ends, white if index % 2 else color, sides=28))
    top = 0.2 + height
    slab, glow = shade(natural(_STONE, rng), 0.5), natural((1.0, 0.88, 0.42), rng)
    rock = natural((0.50, 0.48, 0.46), rng)
    post = box((0.05, 0.36, 0.05), slab, (0, top + 0.22, high * 0.85))
    return merge([
        *bands,
        lathe([(0, 0), (low * 1.7, 0), (low * 1.5, 0.2), (low * 0.9, 0.25), (0, 0.25)], rock, sides=11),
        cylinder(high * 1.5, 0.09, slab).moved(y=top - 0.02),
        torus(high * 1.42, 0.04, slab, sides=6).moved(y=top + 0.17),
        cylinder(high * 0.8, 0.36, glow).moved(y=top + 0.05), around(post, 6, 30),
        lathe([(0, 0), (high * 1.15, 0), (high * 0.8, 0.16), (0, 0.36)], color).moved(y=top + 0.4),
        sphere(0.07, color, (0, top + 0.8, 0), rings=8, sides=10),
        _archway(0.26, 0.42, 0.12, natural(_DOOR, rng)).moved(0, 0.2, low * 0.95),
        *(_archway(0.14, 0.22, 0.12, _DARK).moved(0, 0.2 + height * s, low + (high - low) * s - 0.02)
          for s in (0.5, 0.78)),
    ])  # fmt: skip


def windmill(color: Color, rng: np.random.Generator) -> Part:
    """A windmill; the color is that of the tower, and the sails are at the front."""
    height, low, high = rng.uniform(1.25, 1.5), rng.uniform(0.52, 0.6), rng.uniform(0.32, 0.38)
    wood, cloth = natural((0.42, 0.27, 0.16), rng), natural((0.95, 0.93, 0.87), rng, 0.02)
    reach = rng.uniform(0.85, 0.98)
    spar = box((0.07, reach, 0.06), wood, (0, reach / 2, 0))
    sail = box((0.22, reach * 0.7, 0.05), cloth, (0.14, reach * 0.62, 0.01))
    slats = [box((0.24, 0.035, 0.07), wood, (0.14, reach * s, 0.01)) for s in (0.3, 0.5, 0.7, 0.9)]
    blade = merge([spar, sail, *slats])
    turn = rng.uniform(30, 40)  # nearly equal for all objects, so that views agree on the sails
    hub = height + 0.16
    sails = merge(blade.turned("z", turn + 90 * index) for index in range(4))
    window = _archway(0.2, 0.28, 0.1, natural((0.55, 0.76, 0.90), rng))
    return merge([
        lathe([(0, 0), (low, 0), (high, height), (0, height)], color, sides=8).turned("y", 22.5),
        lathe([(0, 0), (high * 1.2, 0), (high * 1.1, 0.12), (high * 0.75, 0.34), (0, 0.46)], wood)
        .moved(y=height - 0.02),
        cylinder(0.07, high + 0.3, wood, sides=12).turned("x", 90).moved(0, hub, 0),
        sphere(0.12, wood, (0, hub, high + 0.32), rings=8, sides=12),
        sails.moved(0, hub, high + 0.24),
        _archway(0.3, 0.48, 0.14, natural(_DOOR, rng)).moved(0, 0, low * 0.9),
        around(window.moved(0, height * 0.58, (low + (high - low) * 0.6) * 0.93), 4),
        torus(low * 0.98, 0.06, shade(color, 0.7), sides=6).moved(y=0.03),
    ])  # fmt: skip
