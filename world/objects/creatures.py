"""Toy animals, looking toward +Z."""

from __future__ import annotations

import numpy as np

from ..colors import mix, natural, shade
from ..parts import Color, Part, around, both_sides, merge
from ..shapes import cone, cylinder, ellipsoid, extrude, lathe, loft, ovals, sphere, torus, tube

_EYE = np.array((0.06, 0.06, 0.07))
_BEAK = (0.95, 0.50, 0.08)
_WHITE = np.array((0.96, 0.96, 0.94))


def _eyes(spread: float, height: float, front: float, radius: float = 0.09) -> Part:
    """Build white eyes with black pupils that look ahead and slightly outward, visible on any color."""
    white = sphere(radius, _WHITE, rings=8, sides=12)
    pupil = sphere(radius * 0.66, _EYE, (radius * 0.2, radius * 0.05, radius * 0.52), rings=6, sides=10)
    return both_sides(merge([white, pupil]).moved(spread, height, front))


def duck(color: Color, rng: np.random.Generator) -> Part:
    """A rubber duck."""
    plump, head = rng.uniform(0.92, 1.1), rng.uniform(0.35, 0.42)
    neck = 0.75 + head * 0.75
    beak = natural(_BEAK, rng)
    wing = ellipsoid((0.12, 0.26, 0.42), shade(color, 0.88), rings=8).turned("x", 14).moved(0.5 * plump, 0.52, -0.12)
    return merge([
        ellipsoid((0.54 * plump, 0.46, 0.76), color, (0, 0.44, 0)),
        sphere(head, color, (0, neck, 0.36)),
        cone(0.3, 0.5, color).pointing(0, 0.75, -1).moved(0, 0.56, -0.5),
        ellipsoid((0.19, 0.055, 0.22), beak, (0, neck - 0.02, 0.36 + head), rings=8, sides=14),
        ellipsoid((0.15, 0.05, 0.16), shade(beak, 0.85), (0, neck - 0.09, 0.34 + head), rings=8, sides=14),
        _eyes(head * 0.42, neck + head * 0.38, 0.36 + head * 0.76),
        both_sides(wing),
    ])  # fmt: skip


def fish(color: Color, rng: np.random.Generator) -> Part:
    """A fish with light fins and stripes."""
    length, tall, wide = rng.uniform(0.8, 0.95), rng.uniform(0.5, 0.62), rng.uniform(0.3, 0.38)
    fins = mix(color, natural((0.96, 0.96, 0.94), rng), 0.35)
    tail = [
        (0.12, 0),
        (-0.1, 0.17),
        (-0.5, 0.5),
        (-0.42, 0.12),
        (-0.38, 0),
        (-0.42, -0.12),
        (-0.5, -0.5),
        (-0.1, -0.17),
    ]
    back = [(0.35, -0.1), (0.1, 0.26), (-0.3, 0.32), (-0.4, -0.1)]
    side = ellipsoid((0.05, 0.17, 0.27), fins, (0, 0, -0.2), rings=8, sides=12).turned("x", -15).turned("y", -38)
    stripe = torus(1, 0.06, mix(color, _WHITE, 0.7), segments=28, sides=10).turned("x", 90)
    rings = []
    for z in (-0.28, 0.12):
        around_body = np.sqrt(1 - z * z) * 0.985
        rings.append(stripe.scaled(wide * around_body, tall * around_body, 1.0).moved(z=z * length))
    return merge([
        ellipsoid((wide, tall, length), color), *rings,
        extrude(tail, 0.13, fins, bevel=0.04).turned("y", -90).moved(z=-length * 0.9),
        extrude(back, 0.12, fins, bevel=0.04).turned("y", -90).moved(0, tall * 0.9, 0),
        extrude(back, 0.1, fins, bevel=0.03).scaled(0.5, -0.6, 1).turned("y", -90).moved(0, -tall * 0.92, -0.1),
        both_sides(side.moved(wide * 0.9, -0.1, 0.1)),
        _eyes(wide * 0.66, tall * 0.3, length * 0.66, 0.12),
        torus(0.09, 0.045, shade(fins, 0.85), segments=14, sides=8).turned("x", 90).moved(0, -0.06, length * 0.97),
    ])  # fmt: skip


def cat(color: Color, rng: np.random.Generator) -> Part:
    """A sitting cat; its tail curls around on the right."""
    plump, head = rng.uniform(0.42, 0.5), rng.uniform(0.4, 0.46)
    neck = 0.95 + head * 0.5
    pale, pink = mix(color, _WHITE, 0.7), natural((0.93, 0.56, 0.60), rng)
    ear = merge([
        cone(0.2, 0.36, color, sides=14).scaled(1, 1, 0.55),
        cone(0.12, 0.25, pink, sides=12).scaled(1, 1, 0.5).moved(0, 0.01, 0.05),
    ]).turned("z", -20).moved(head * 0.55, neck + head * 0.66, 0.12)  # fmt: skip
    angles = np.radians(np.linspace(-170, 35, 12))
    curl = np.stack(
        [0.1 + 0.55 * np.cos(angles), 0.12 + 0.25 * np.linspace(0, 1, 12) ** 3, -0.1 - 0.55 * np.sin(angles) * -1], -1
    )
    return merge([
        loft(ovals([(0, 0.02, 0), (0, 0.25, -0.04), (0, 0.55, -0.04), (0, 0.9, 0.03), (0, 1.05, 0.06)],
                   [(plump, 0.46), (plump * 1.1, 0.52), (plump * 0.92, 0.44), (plump * 0.6, 0.3), (0.15, 0.15)]),
             color),
        ellipsoid((head * 1.08, head * 0.92, head * 0.9), color, (0, neck, 0.14)),
        both_sides(ear),
        _eyes(head * 0.42, neck + 0.05, 0.14 + head * 0.74, 0.1),
        both_sides(ellipsoid((0.13, 0.1, 0.1), pale, (0.09, neck - 0.16, 0.12 + head * 0.84), rings=8, sides=12)),
        ellipsoid((0.065, 0.05, 0.05), pink, (0, neck - 0.09, 0.18 + head * 0.9), rings=6, sides=10),
        ellipsoid((0.24, 0.34, 0.12), pale, (0, 0.62, 0.32), rings=10, sides=14),
        both_sides(tube([(0.17, 0.62, 0.28), (0.17, 0.12, 0.42)], [0.13, 0.12], color)),
        both_sides(ellipsoid((0.14, 0.09, 0.18), pale, (0.17, 0.09, 0.5), rings=8, sides=12)),
        both_sides(ellipsoid((0.2, 0.26, 0.34), color, (plump * 0.85, 0.24, 0.12), rings=10, sides=14)),
        tube([(x, y, z) for x, y, z in curl], 0.095, shade(color, 0.85)),
    ])  # fmt: skip


def penguin(color: Color, rng: np.random.Generator) -> Part:
    """A penguin with its flippers at its sides."""
    plump, height = rng.uniform(0.5, 0.6), rng.uniform(0.72, 0.82)
    head, orange = rng.uniform(0.38, 0.42), natural(_BEAK, rng)
    top = 0.1 + 2 * height - 0.12
    flipper = ellipsoid((0.09, 0.42, 0.2), shade(color, 0.85), (0, -0.36, 0), rings=10, sides=12)
    foot = merge(
        ellipsoid((0.1, 0.06, 0.22), orange, rings=6, sides=10).turned("y", turn).moved(0, 0.06, 0)
        for turn in (-22, 0, 22)
    )
    return merge([
        ellipsoid((plump, height, plump * 0.92), color, (0, 0.08 + height, 0), rings=16, sides=24),
        ellipsoid((plump * 0.8, height * 0.84, plump * 0.5), _WHITE, (0, 0.02 + height, plump * 0.5), rings=14),
        sphere(head, color, (0, top, 0.02)),
        both_sides(ellipsoid((0.18, 0.2, 0.12), _WHITE, (0.13, top + 0.01, head * 0.76), rings=10, sides=14)),
        _eyes(0.14, top + 0.07, head * 0.94, 0.075),
        cone(0.12, 0.3, orange, sides=14).scaled(1.1, 1, 0.7).pointing(0, -0.15, 1).moved(0, top - 0.08, head * 0.88),
        both_sides(flipper.turned("z", rng.uniform(22, 40)).moved(plump * 0.82, 0.15 + height * 1.3, 0)),
        both_sides(foot.moved(0.22, 0, plump * 0.75)),
        cone(0.18, 0.35, shade(color, 0.85), sides=14).pointing(0, -0.2, -1).moved(0, 0.3, -plump * 0.75),
    ])  # fmt: skip


def teddy_bear(color: Color, rng: np.random.Generator) -> Part:
    """A sitting teddy bear."""
    plump, head = rng.uniform(0.46, 0.54), rng.uniform(0.42, 0.48)
    neck = 0.82 + head * 0.85
    pale = mix(color, natural((0.98, 0.90, 0.76), rng, 0.02), 0.7)
    ear = merge([
        ellipsoid((0.19, 0.19, 0.1), color, rings=8, sides=14),
        ellipsoid((0.12, 0.12, 0.07), pale, (0, -0.01, 0.06), rings=8, sides=12),
    ]).moved(head * 0.74, neck + head * 0.72, 0)  # fmt: skip
    leg = merge([
        tube([(0.24, 0.2, 0.1), (0.38, 0.18, 0.6)], [0.2, 0.19], color, sides=14),
        ellipsoid((0.15, 0.16, 0.06), pale, (0.4, 0.19, 0.77), rings=8, sides=14),
    ])  # fmt: skip
    lift = rng.uniform(0.35, 0.6)
    return merge([
        ellipsoid((plump, 0.52, plump * 0.88), color, (0, 0.48, 0)),
        ellipsoid((plump * 0.68, 0.36, 0.16), pale, (0, 0.48, plump * 0.78), rings=10),
        ellipsoid((head * 1.05, head * 0.95, head * 0.92), color, (0, neck, 0.04)),
        ellipsoid((0.22, 0.17, 0.17), pale, (0, neck - 0.12, head * 0.86), rings=10, sides=16),
        ellipsoid((0.09, 0.065, 0.06), _EYE, (0, neck - 0.05, head * 0.86 + 0.15), rings=6, sides=10),
        _eyes(head * 0.4, neck + 0.09, head * 0.82, 0.075),
        both_sides(ear), both_sides(leg),
        both_sides(tube([(plump * 0.7, 0.78, 0.05), (plump + 0.2, lift, 0.3)], [0.16, 0.17], color, sides=14)),
        sphere(0.1, color, (0, 0.2, -plump * 0.9), rings=8, sides=12),
    ])  # fmt: skip


def bee(color: Color, rng: np.random.Generator) -> Part:
    """A flying bee with stripes in the color and black."""
    length, girth = rng.uniform(0.78, 0.9), rng.uniform(0.5, 0.58)
    black = natural((0.12, 0.11, 0.11), rng, 0.02)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 16)
    profile = [(girth * np.cos(a), length * np.sin(a)) for a in angles]
    profile[0], profile[-1] = (0, -length), (0, length)
    body = [lathe(profile[start : start + 4], black if index % 2 else color, sides=22)
            for index, start in enumerate(range(0, 15, 3))]  # fmt: skip
    wing = ellipsoid((0.42, 0.05, 0.27), natural((0.82, 0.91, 0.97), rng), (0.4, 0, 0), rings=8, sides=14)
    feeler = merge([
        tube([(0.14, 0.36, 0.72), (0.22, 0.62, 0.86), (0.3, 0.7, 1.0)], 0.04, black, sides=8),
        sphere(0.075, black, (0.3, 0.7, 1.02), rings=6, sides=10),
    ])  # fmt: skip
    tilt = rng.uniform(24, 40)
    return merge([
        merge(body).turned("x", 90).moved(z=-0.15),
        cone(0.1, 0.26, black, sides=12).pointing(0, 0, -1).moved(z=-0.1 - length),
        sphere(0.38, color, (0, 0.1, length * 0.72)),
        _eyes(0.17, 0.18, length * 0.72 + 0.29, 0.12),
        both_sides(feeler.moved(z=length * 0.72 - 0.62)),
        both_sides(wing.turned("z", tilt).moved(0.12, girth * 0.85, 0.0)),
        both_sides(wing.scaled(0.75, 1, 0.8).turned("z", tilt - 8).turned("y", 24).moved(0.12, girth * 0.82, -0.3)),
    ])  # fmt: skip


def turtle(color: Color, rng: np.random.Generator) -> Part:
    """A turtle; the color is that of the shell, and the body is green."""
    radius, rise = rng.uniform(0.66, 0.76), rng.uniform(0.42, 0.55)
    skin = natural((0.52, 0.72, 0.33), rng)
    angles = np.linspace(0, np.pi / 2, 8)
    dome = [(radius * np.cos(a), 0.3 + rise * np.sin(a)) for a in angles]
    dome[-1] = (0, 0.3 + rise)
    plates = []
    for count, polar, size in ((1, 0.0, 0.24), (6, 0.78, 0.21)):
        plate = cylinder(size, 0.06, shade(color, 0.72), top=size * 0.85, sides=6)
        height, out = rise * np.cos(polar), radius * np.sin(polar)
        plates.append(
            around(
                plate.pointing(0, np.cos(polar) / rise, np.sin(polar) / radius).moved(0, 0.28 + height, out * 0.97),
                count,
            )
        )
    leg = ellipsoid((0.17, 0.14, 0.27), skin, (0, 0.13, 0.62), rings=8, sides=12)
    neck = rng.uniform(0.3, 0.45)
    return merge([
        lathe([(0, 0.16), (radius * 0.9, 0.18), (radius + 0.05, 0.26), (radius + 0.05, 0.34), (0, 0.36)],
              shade(skin, 1.15)),
        lathe(dome, color, sides=28), *plates,
        merge(leg.turned("y", turn) for turn in (48, 132, 228, 312)),
        tube([(0, 0.26, radius * 0.8), (0, neck, radius + 0.22)], [0.16, 0.16], skin),
        ellipsoid((0.25, 0.23, 0.28), skin, (0, neck + 0.1, radius + 0.36)),
        _eyes(0.15, neck + 0.2, radius + 0.53, 0.085),
        cone(0.12, 0.3, skin, sides=12).pointing(0, -0.2, -1).moved(0, 0.24, -radius * 0.95),
    ])  # fmt: skip
