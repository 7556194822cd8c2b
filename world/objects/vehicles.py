"""Land vehicles, aircraft and boats, heading toward +Z."""

from __future__ import annotations

import numpy as np

from ..colors import natural, shade
from ..parts import Color, Part, around, both_sides, merge
from ..shapes import box, cylinder, ellipsoid, extrude, lathe, loft, ovals, sphere, torus, tube

_GLASS = (0.56, 0.77, 0.90)
_TYRE = np.array((0.09, 0.09, 0.10))
_HUB = np.array((0.78, 0.79, 0.80))
_LAMP = np.array((1.0, 0.93, 0.55))
_TAIL_LAMP = np.array((0.70, 0.05, 0.06))


def _wheels(radius: float, track: float, positions: tuple[float, ...], width: float = 0.2) -> Part:
    """Build pairs of wheels at z `positions`, standing on y = 0; `track` is the distance of their outer faces."""
    wheel = merge([cylinder(radius, width, _TYRE), cylinder(radius * 0.5, width + 0.025, _HUB, sides=14)])
    wheel = wheel.turned("z", -90).moved(track / 2 - width, radius, 0)
    return both_sides(merge(wheel.moved(z=z) for z in positions))


def car(color: Color, rng: np.random.Generator) -> Part:
    """A passenger car."""
    length, width = rng.uniform(1.8, 2.15), rng.uniform(0.9, 1.02)
    wheel, belt, cabin = rng.uniform(0.23, 0.27), rng.uniform(0.62, 0.7), rng.uniform(0.34, 0.42)
    glass = natural(_GLASS, rng)
    cabin_length, cabin_z = length * rng.uniform(0.5, 0.58), -length * rng.uniform(0.05, 0.12)
    front = length / 2
    return merge([
        box((width, belt - 0.17, length), color, (0, (belt + 0.17) / 2, 0), bevel=0.3),
        box((width * 0.92, cabin, cabin_length), glass, (0, belt + cabin / 2 - 0.02, cabin_z), taper=(0.84, 0.66)),
        box((width * 0.8, 0.09, cabin_length * 0.7), color, (0, belt + cabin - 0.02, cabin_z), bevel=0.3),
        both_sides(box((0.08, cabin, 0.1), color, (width * 0.42, belt + cabin / 2 - 0.02, cabin_z))),
        _wheels(wheel, width + 0.06, (-length * 0.3, length * 0.3)),
        both_sides(ellipsoid((0.11, 0.1, 0.06), _LAMP, (width * 0.32, belt - 0.14, front), rings=8, sides=12)),
        both_sides(box((0.2, 0.11, 0.06), _TAIL_LAMP, (width * 0.32, belt - 0.14, -front))),
        box((width * 0.4, 0.12, 0.05), _TYRE, (0, 0.36, front)),
        box((width * 0.9, 0.1, 0.1), _HUB, (0, 0.26, front)),
        box((width * 0.9, 0.1, 0.1), _HUB, (0, 0.26, -front)),
    ])  # fmt: skip


def truck(color: Color, rng: np.random.Generator) -> Part:
    """A truck; the color is that of the cab, and the cargo box is pale."""
    width, load, high = rng.uniform(0.85, 0.95), rng.uniform(1.25, 1.6), rng.uniform(0.85, 1.05)
    glass, cargo = natural(_GLASS, rng), natural((0.88, 0.88, 0.85), rng)
    front, cab = 0.72, rng.uniform(0.78, 0.9)
    rib = both_sides(box((0.04, high * 0.92, 0.06), shade(cargo, 0.8), (width / 2 + 0.03, 0.42 + high / 2, 0)))
    return merge([
        box((width * 0.8, 0.16, load + front), shade(_HUB, 0.35), (0, 0.3, front / 2 - load / 2)),
        box((width, cab, front), color, (0, 0.34 + cab / 2, front / 2 + 0.04), bevel=0.25),
        box((width * 0.86, cab * 0.36, 0.06), glass, (0, 0.34 + cab * 0.7, front + 0.03)),
        both_sides(box((0.06, cab * 0.36, front * 0.5), glass, (width / 2 - 0.01, 0.34 + cab * 0.7, front * 0.6))),
        both_sides(ellipsoid((0.09, 0.09, 0.05), _LAMP, (width * 0.35, 0.52, front + 0.04), rings=8, sides=12)),
        box((width * 0.4, 0.14, 0.05), _TYRE, (0, 0.52, front + 0.03)),
        box((width, 0.12, 0.12), _HUB, (0, 0.32, front + 0.04)),
        box((width + 0.08, high, load), cargo, (0, 0.38 + high / 2, -load / 2 - 0.02), bevel=0.08),
        *(rib.moved(z=-load * fraction) for fraction in (0.2, 0.5, 0.8)),
        box((0.05, high * 0.85, 0.05), shade(cargo, 0.6), (0, 0.4 + high / 2, -load - 0.02)),
        both_sides(box((0.18, 0.1, 0.06), _TAIL_LAMP, (width * 0.34, 0.32, -load))),
        _wheels(0.25, width + 0.06, (0.36, -load * 0.5, -load * 0.5 - 0.52 if load > 1.4 else -load + 0.2)),
    ])  # fmt: skip


def airplane(color: Color, rng: np.random.Generator) -> Part:
    """A propeller airplane."""
    length, girth, span = rng.uniform(1.9, 2.2), rng.uniform(0.27, 0.32), rng.uniform(2.0, 2.4)
    pale = natural((0.93, 0.93, 0.92), rng, 0.02)
    fraction = np.array([0.0, 0.04, 0.12, 0.3, 0.55, 0.8, 0.93, 1.0])
    radii = girth * np.array([0.25, 0.36, 0.5, 0.8, 1.0, 0.98, 0.8, 0.55])
    lift = girth * np.array([0.55, 0.53, 0.48, 0.25, 0.05, 0, 0, 0])
    centers = np.stack([0 * fraction, length * (fraction - 0.55), -lift], -1)
    body = loft(ovals(centers, np.stack([radii, radii], -1), sides=22), color).turned("x", 90)
    nose = length * 0.45
    wing = [(0, 0.3), (span / 2, 0.12), (span / 2, -0.14), (0, -0.3)]
    tail = [(0, 0.2), (span * 0.2, 0.08), (span * 0.2, -0.12), (0, -0.16)]
    fin = [(-0.22, 0), (0.2, 0), (-0.06, 0.44), (-0.26, 0.44)]
    blade = ellipsoid((0.09, 0.36, 0.045), shade(_HUB, 0.55), (0, 0.26, 0), rings=8, sides=10)
    turn = rng.uniform(0, 90)
    return merge([
        body,
        both_sides(extrude(wing, 0.11, pale, bevel=0.03).turned("x", 90).turned("z", 4).moved(0, -0.06, 0.12)),
        both_sides(extrude(tail, 0.09, pale, bevel=0.02).turned("x", 90).moved(0, girth * 0.5, -length * 0.47)),
        extrude(fin, 0.1, pale, bevel=0.02).turned("y", -90).moved(0, girth * 0.6, -length * 0.42),
        ellipsoid((girth * 0.62, girth * 0.6, 0.34), natural(_GLASS, rng), (0, girth * 0.75, length * 0.14), rings=10),
        sphere(girth * 0.5, natural((0.9, 0.75, 0.25), rng), (0, 0, nose), rings=8, sides=14),
        merge([blade, blade.turned("z", 180)]).turned("z", turn).moved(z=nose + girth * 0.35),
        both_sides(_wheels(0.13, 0.62, (0.22,), width=0.12).moved(y=-girth - 0.17)),
        both_sides(box((0.08, 0.3, 0.09), shade(_HUB, 0.6), (0.2, -girth - 0.02, 0.22))),
    ])  # fmt: skip


def rocket(color: Color, rng: np.random.Generator) -> Part:
    """A rocket with a window at the front."""
    height, radius = rng.uniform(1.35, 1.65), rng.uniform(0.36, 0.44)
    pale = natural((0.93, 0.93, 0.92), rng, 0.02)
    fraction = np.linspace(0, 1, 12)
    bulge = radius * np.sin(np.pi * (0.22 + 0.78 * fraction)) ** 0.75
    skin = [(float(r), 0.25 + height * float(s)) for r, s in zip(bulge, fraction, strict=True)]
    split = 8
    fin = [(radius * 0.6, 0.62), (radius * 0.6, 0.2), (radius * 2.05, -0.12), (radius * 2.0, 0.22), (radius * 1.5, 0.5)]
    fins = around(extrude(fin, 0.12, pale, bevel=0.03).turned("y", -90), 3, 60)
    middle = 0.25 + height * 0.5
    ring = torus(0.16, 0.05, pale, segments=18, sides=8).turned("x", 90)
    parts = [
        lathe([(0, 0.25), *skin[: split + 1]], color, sides=28),
        lathe([*skin[split:-1], (0, 0.25 + height)], pale, sides=28),
        lathe([(0, 0.08), (radius * 0.62, 0.08), (radius * 0.45, 0.27), (0, 0.27)], shade(_HUB, 0.4)),
        fins,
        merge([ring, ellipsoid((0.15, 0.15, 0.06), natural(_GLASS, rng), rings=8, sides=14)]).moved(
            0, middle, radius * 0.96
        ),
    ]
    if rng.random() < 0.5:
        parts += [
            ellipsoid((radius * 0.4, 0.3, radius * 0.4), np.array((0.98, 0.62, 0.1)), (0, 0.04, 0), rings=8, sides=14)
        ]
    return merge(parts)


def sailboat(color: Color, rng: np.random.Generator) -> Part:
    """A sailboat; the color is that of the hull."""
    length, beam, mast = rng.uniform(1.6, 1.9), rng.uniform(0.62, 0.74), rng.uniform(1.6, 1.9)
    levels = np.array([0, 0.12, 0.28, 0.44])
    swell = np.array([0.35, 0.75, 0.95, 1.0])
    hull = ovals(
        np.stack([0 * levels, levels, 0.06 * swell], -1),
        np.stack([swell * beam / 2, (0.7 + 0.3 * swell) * length / 2], -1),
        sides=32,
    )  # fmt: skip
    forward = np.clip(hull[..., 2] / (length / 2), -1, 1)
    hull[..., 0] *= 1 - 0.55 * np.clip(forward, 0, 1) ** 2  # a pointed bow
    hull[..., 1] += 0.14 * np.clip(forward, 0, 1) ** 3 * (levels / levels[-1])[:, None]
    deck = hull[-1:] * np.array([0.86, 1, 0.88])
    wood, cloth = natural((0.66, 0.46, 0.27), rng), natural((0.96, 0.95, 0.91), rng, 0.02)
    swing = rng.uniform(24, 38)
    main = extrude([(0.06, 0.7), (length * 0.5, 0.7), (0.06, 0.4 + mast)], 0.08, cloth, bevel=0.02)
    jib = extrude(
        [(-0.06, 0.66), (-length * 0.4, 0.66), (-0.06, 0.2 + mast * 0.85)], 0.08, shade(cloth, 0.93), bevel=0.02
    )
    return merge([
        loft(hull, color), loft(np.concatenate([deck, deck + np.array([0, 0.03, 0])]), wood),
        tube([(0, 0.4, 0), (0, 0.45 + mast, 0)], 0.055, wood),
        tube([(0, 0.62, -0.03), (0, 0.62, -length * 0.5)], 0.05, wood).turned("y", -swing),
        main.turned("y", 90 - swing), jib.turned("y", 90 - swing * 0.7),
        extrude([(0, 0), (-0.3, 0.1), (0, 0.2)], 0.06, color).turned("y", 90 - swing).moved(y=0.28 + mast),
        box((beam * 0.5, 0.16, length * 0.2), shade(wood, 0.8), (0, 0.5, -length * 0.25)),
    ])  # fmt: skip


def train(color: Color, rng: np.random.Generator) -> Part:
    """A steam locomotive."""
    length, radius, cab = rng.uniform(1.15, 1.4), rng.uniform(0.34, 0.4), rng.uniform(0.52, 0.62)
    dark, brass = natural((0.17, 0.17, 0.19), rng, 0.02), natural((0.88, 0.71, 0.28), rng)
    axle = 0.42 + radius
    front, back = length * 0.6, -length * 0.4
    roof = axle + radius + 0.28
    bands = [
        cylinder(radius + 0.025, 0.06, brass).turned("x", 90).moved(0, axle, back + length * s) for s in (0.3, 0.65)
    ]
    boiler = lathe(
        [(0, 0), (radius, 0), (radius, length), (radius * 0.85, length + 0.05), (0, length + 0.05)], color, sides=28
    )
    chimney = lathe([(0, 0), (0.11, 0), (0.11, 0.22), (0.2, 0.4), (0.2, 0.46), (0, 0.46)], dark)
    catcher = extrude(
        [(-0.42, 0), (0.42, 0), (0.3, 0.26), (-0.3, 0.26)], 0.22, natural((0.75, 0.12, 0.1), rng), bevel=0.04
    )
    wheel = rng.uniform(0.23, 0.27)
    return merge([
        boiler.turned("x", 90).moved(0, axle, back), *bands,
        cylinder(radius * 0.7, 0.06, dark).turned("x", 90).moved(0, axle, front + 0.03),
        sphere(0.1, brass, (0, axle + radius + 0.02, front + 0.02), rings=8, sides=12),
        chimney.moved(0, axle + radius - 0.04, front - 0.22),
        lathe([(0, 0), (0.13, 0), (0.13, 0.1), (0.09, 0.18), (0, 0.2)], brass)
        .moved(0, axle + radius - 0.02, front - length * 0.5),
        box((2 * radius + 0.2, roof - 0.4, cab), color, (0, (roof + 0.4) / 2, back - cab / 2 + 0.06), bevel=0.1),
        box((2 * radius + 0.4, 0.1, cab + 0.2), dark, (0, roof + 0.03, back - cab / 2 + 0.06), bevel=0.4),
        both_sides(box((0.06, 0.3, cab * 0.55), natural(_GLASS, rng),
                       (radius + 0.1, roof - 0.26, back - cab / 2 + 0.06))),
        box((2 * radius * 0.6, 0.28, 0.05), natural(_GLASS, rng), (0, roof - 0.26, back - cab + 0.05)),
        box((2 * radius + 0.16, 0.14, length + cab), dark, (0, 0.36, (front + back - cab) / 2 + 0.06)),
        catcher.moved(0, 0.06, front + 0.12),
        _wheels(wheel, 2 * radius + 0.24, (front - 0.3, (front + back - cab) / 2, back - cab + 0.35), width=0.14),
        both_sides(box((0.06, 0.08, length * 0.95), _HUB, (radius + 0.13, wheel, (front + back - cab) / 2 + 0.05))),
    ])  # fmt: skip
