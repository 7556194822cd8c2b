"""Things of the house."""

from __future__ import annotations

import numpy as np

from ..colours import natural, shade
from ..parts import Colour, Part, around, both_sides, merge
from ..shapes import arc, box, cone, cylinder, ellipsoid, extrude, lathe, sphere, tube

_BRASS = (0.85, 0.68, 0.28)
_PAPER = (0.95, 0.92, 0.84)


def mug(colour: Colour, rng: np.random.Generator) -> Part:
    """Its handle is on the right (+X)."""
    radius, height = rng.uniform(0.5, 0.62), rng.uniform(1.05, 1.4)
    foot, lip, wall = radius * rng.uniform(0.82, 1.0), radius * rng.uniform(0.98, 1.1), 0.09
    outside = [
        (0, 0),
        (foot - 0.05, 0),
        (foot, 0.06),
        (radius, height * 0.5),
        (lip, height - 0.04),
        (lip - 0.04, height),
    ]
    body = lathe([*outside, (lip - wall, height - 0.03)], colour, sides=32)
    inside = lathe([(lip - wall, height - 0.03), (radius - wall, height * 0.5), (foot - wall, 0.14), (0, 0.12)],
                   shade(colour, 0.62), sides=32)  # fmt: skip
    loop = arc(height * rng.uniform(0.27, 0.32), -100, 100, 12) * [rng.uniform(0.95, 1.25), 1, 1]
    handle = tube(loop + [radius * 0.97, height * 0.52, 0], 0.085, colour)
    return merge([body, inside, handle])


def teapot(colour: Colour, rng: np.random.Generator) -> Part:
    """Its spout is on the right (+X)."""
    radius, height = rng.uniform(0.62, 0.74), rng.uniform(0.85, 1.0)
    angles = np.linspace(-1.05, 1.0, 10)
    belly = [(radius * np.cos(a), height / 2 * (1 + np.sin(a) / 0.86)) for a in angles]
    rim = belly[-1][0]
    lid = shade(colour, 0.8)
    spout = np.array([[0.75, 0.3], [1.15, 0.36], [1.4, 0.62], [1.62, 0.9]]) * [radius, height]
    loop = arc(height * 0.34, 80, 280, 12) * [rng.uniform(1.1, 1.4), 1, 1]
    return merge([
        lathe([(0, belly[0][1]), *belly, (0, belly[-1][1])], colour, sides=28),
        lathe([(0, height - 0.02), (rim * 1.02, height - 0.02), (rim * 0.85, height + 0.09), (rim * 0.4, height + 0.17),
               (0, height + 0.19)], lid),
        sphere(0.11, lid, (0, height + 0.26, 0), rings=8, sides=14),
        tube([(x, y, 0) for x, y in spout], [0.19, 0.15, 0.11, 0.1], colour),
        cylinder(0.065, 0.02, shade(colour, 0.25), sides=12).pointing(*(spout[3] - spout[2]), 0)
        .moved(spout[3, 0] + 0.06, spout[3, 1] + 0.085),
        tube(loop + [-radius * 0.86, height * 0.52, 0], 0.075, colour),
    ])  # fmt: skip


def chair(colour: Colour, rng: np.random.Generator) -> Part:
    """The sitter looks at +Z."""
    width, depth, seat = rng.uniform(0.9, 1.05), rng.uniform(0.9, 1.0), rng.uniform(0.75, 0.95)
    back, leg = rng.uniform(0.85, 1.1), rng.uniform(0.12, 0.15)
    dark = shade(colour, 0.82)
    x, z = width / 2 - leg / 2, depth / 2 - leg / 2
    parts = [box((width, 0.14, depth), colour, (0, seat, 0))]
    parts += [both_sides(box((leg, seat, leg), dark, (x, seat / 2, z)))]
    parts += [both_sides(box((leg, seat + back, leg), dark, (x, (seat + back) / 2, -z)))]
    if rng.random() < 0.5:
        parts += [box((width - 2 * leg, back * 0.16, 0.1), colour, (0, seat + back * y, -z)) for y in (0.35, 0.62, 0.9)]
    else:
        parts += [box((width - leg, back * 0.72, 0.1), colour, (0, seat + back * 0.6, -z))]
    return merge(parts)
