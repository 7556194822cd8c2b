"""Things that drive, fly and float; all of them head for +Z."""

from __future__ import annotations

import numpy as np

from ..colours import natural, shade
from ..parts import Colour, Part, around, both_sides, merge
from ..shapes import box, cone, cylinder, ellipsoid, extrude, lathe, loft, sphere, torus

_GLASS = (0.56, 0.77, 0.90)
_TYRE = np.array((0.09, 0.09, 0.10))
_HUB = np.array((0.78, 0.79, 0.80))
_LAMP = np.array((1.0, 0.93, 0.55))
_TAIL_LAMP = np.array((0.70, 0.05, 0.06))


def _wheels(radius: float, track: float, positions: tuple[float, ...], width: float = 0.2) -> Part:
    """Pairs of wheels at z `positions`, standing on y = 0, their outer faces `track` apart."""
    wheel = merge([cylinder(radius, width, _TYRE), cylinder(radius * 0.5, width + 0.025, _HUB, sides=14)])
    wheel = wheel.turned("z", -90).moved(track / 2 - width, radius, 0)
    return both_sides(merge(wheel.moved(z=z) for z in positions))


def car(colour: Colour, rng: np.random.Generator) -> Part:
    length, width = rng.uniform(1.8, 2.15), rng.uniform(0.9, 1.02)
    wheel, belt, cabin = rng.uniform(0.23, 0.27), rng.uniform(0.62, 0.7), rng.uniform(0.34, 0.42)
    glass = natural(_GLASS, rng)
    cabin_length, cabin_z = length * rng.uniform(0.5, 0.58), -length * rng.uniform(0.05, 0.12)
    front = length / 2
    return merge([
        box((width, belt - 0.17, length), colour, (0, (belt + 0.17) / 2, 0), bevel=0.3),
        box((width * 0.92, cabin, cabin_length), glass, (0, belt + cabin / 2 - 0.02, cabin_z), taper=(0.84, 0.66)),
        box((width * 0.8, 0.09, cabin_length * 0.7), colour, (0, belt + cabin - 0.02, cabin_z), bevel=0.3),
        both_sides(box((0.08, cabin, 0.1), colour, (width * 0.42, belt + cabin / 2 - 0.02, cabin_z), taper=(1, 1)).moved(-0.01)),
        _wheels(wheel, width + 0.06, (-length * 0.3, length * 0.3)),
        both_sides(ellipsoid((0.11, 0.1, 0.06), _LAMP, (width * 0.32, belt - 0.14, front), rings=8, sides=12)),
        both_sides(box((0.2, 0.11, 0.06), _TAIL_LAMP, (width * 0.32, belt - 0.14, -front))),
        box((width * 0.4, 0.12, 0.05), _TYRE, (0, 0.36, front)),
        both_sides(box((width * 0.9, 0.1, 0.1), _HUB, (0, 0.26, front))),
    ])  # fmt: skip
