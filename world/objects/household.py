"""Household objects."""

from __future__ import annotations

import numpy as np

from ..colors import natural, shade
from ..parts import Color, Part, around, both_sides, merge
from ..shapes import arc, box, cylinder, lathe, loft, ovals, sphere, surface, torus, tube

_BRASS = (0.85, 0.68, 0.28)
_PAPER = (0.95, 0.92, 0.84)


def mug(color: Color, rng: np.random.Generator) -> Part:
    """A mug with its handle on the right (+X)."""
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
    body = lathe([*outside, (lip - wall, height - 0.03)], color, sides=32)
    inside = lathe([(lip - wall, height - 0.03), (radius - wall, height * 0.5), (foot - wall, 0.14), (0, 0.12)],
                   shade(color, 0.62), sides=32)  # fmt: skip
    reach = height * rng.uniform(0.27, 0.32)
    loop = (reach * rng.uniform(0.95, 1.25), reach)
    handle = tube(arc(loop, -100, 100, (radius * 0.97, height * 0.52), count=12), 0.085, color)
    return merge([body, inside, handle])


def teapot(color: Color, rng: np.random.Generator) -> Part:
    """A teapot with its spout on the right (+X)."""
    radius, height = rng.uniform(0.62, 0.74), rng.uniform(0.85, 1.0)
    angles = np.linspace(-1.05, 1.0, 10)
    belly = [(radius * np.cos(a), height / 2 * (1 + np.sin(a) / 0.86)) for a in angles]
    rim = belly[-1][0]
    lid = shade(color, 0.8)
    spout = np.array([[0.75, 0.3], [1.15, 0.36], [1.4, 0.62], [1.62, 0.9]]) * [radius, height]
    rise = spout[3] - spout[2]
    loop = (height * rng.uniform(0.37, 0.47), height * 0.34)
    return merge([
        lathe([(0, belly[0][1]), *belly, (0, belly[-1][1])], color, sides=28),
        lathe([(0, height - 0.02), (rim * 1.02, height - 0.02), (rim * 0.85, height + 0.09), (rim * 0.4, height + 0.17),
               (0, height + 0.19)], lid),
        sphere(0.11, lid, (0, height + 0.26, 0), rings=8, sides=14),
        tube([(x, y, 0) for x, y in spout], [0.19, 0.15, 0.11, 0.1], color),
        cylinder(0.065, 0.02, shade(color, 0.25), sides=12).pointing(float(rise[0]), float(rise[1]), 0)
        .moved(spout[3, 0] + 0.06, spout[3, 1] + 0.085),
        tube(arc(loop, 80, 280, (-radius * 0.86, height * 0.52), count=12), 0.075, color),
    ])  # fmt: skip


def chair(color: Color, rng: np.random.Generator) -> Part:
    """A chair facing +Z."""
    width, depth, seat = rng.uniform(0.9, 1.05), rng.uniform(0.9, 1.0), rng.uniform(0.75, 0.95)
    back, leg = rng.uniform(0.85, 1.1), rng.uniform(0.12, 0.15)
    dark = shade(color, 0.82)
    x, z = width / 2 - leg / 2, depth / 2 - leg / 2
    parts = [box((width, 0.14, depth), color, (0, seat, 0))]
    parts += [both_sides(box((leg, seat, leg), dark, (x, seat / 2, z)))]
    parts += [both_sides(box((leg, seat + back, leg), dark, (x, (seat + back) / 2, -z)))]
    if rng.random() < 0.5:
        parts += [box((width - 2 * leg, back * 0.16, 0.1), color, (0, seat + back * y, -z)) for y in (0.35, 0.62, 0.9)]
    else:
        parts += [box((width - leg, back * 0.72, 0.1), color, (0, seat + back * 0.6, -z))]
    return merge(parts)


def lamp(color: Color, rng: np.random.Generator) -> Part:
    """A lamp; the color is that of the shade."""
    foot, belly, stand = rng.uniform(0.3, 0.4), rng.uniform(0.2, 0.3), rng.uniform(0.7, 0.95)
    low, high, rise = rng.uniform(0.58, 0.68), rng.uniform(0.3, 0.42), rng.uniform(0.6, 0.75)
    base = natural(_BRASS if rng.random() < 0.5 else _PAPER, rng)
    angles = np.linspace(-1.1, 1.1, 8)
    body = [(0.1 + belly * np.cos(a) - 0.1, 0.12 + stand * 0.38 * (1 + np.sin(a) / 0.89)) for a in angles]
    glow = natural((1.0, 0.93, 0.66), rng, 0.02)
    return merge([
        lathe([(0, 0), (foot, 0), (foot, 0.07), (body[0][0], 0.12), *body, (0.07, stand), (0.07, stand + 0.3),
               (0, stand + 0.3)], base),
        lathe([(0, stand + 0.16), (low - 0.05, stand)], glow),
        lathe([(low - 0.05, stand), (low, stand), (high, stand + rise), (high - 0.05, stand + rise),
               (0, stand + rise - 0.04)],
              color, sides=32),
        sphere(0.08, base, (0, stand + rise + 0.05, 0), rings=8, sides=12),
        lathe([(low + 0.012, stand + 0.01), (low + 0.015, stand + 0.07)], shade(color, 0.7), sides=32),
    ])  # fmt: skip


def umbrella(color: Color, rng: np.random.Generator) -> Part:
    """An open umbrella with panels alternately in the color and white; the hook of the handle points right (+X)."""
    rise, drop = rng.uniform(0.5, 0.65), rng.uniform(1.1, 1.35)
    reach, angles = np.meshgrid(np.linspace(1, 0, 8), np.radians(np.linspace(-22.5, 22.5, 7)), indexing="ij")
    # The cloth sags between the ribs at the panel's two edges.
    height = rise * np.cos(reach * 1.45) + 0.1 * np.cos(4 * angles) * reach**2
    outside = np.stack([reach * np.sin(angles), height, reach * np.cos(angles)], -1)
    inside = outside - np.array([0, 0.06, 0]) * (1 - reach[..., None] ** 6)

    def panels(tint: Color, start: float) -> Part:
        cloth = surface(outside, tint, wrap_columns=False)
        lining = surface(inside[:, ::-1], shade(tint, 0.75), wrap_columns=False)
        return around(merge([cloth, lining]), 4, start)

    hook = arc((0.17, 0.17), 180, 350, (0.17, rise - drop))
    wood = natural((0.42, 0.25, 0.13), rng)
    return merge([
        panels(color, 22.5), panels(natural(_PAPER, rng), 67.5),
        tube([(0, rise - drop, 0), (0, rise + 0.12, 0)], 0.05, wood),
        tube(hook, 0.075, wood),
    ])  # fmt: skip


def hat(color: Color, rng: np.random.Generator) -> Part:
    """A wizard's hat whose tip bends to the right, with a buckle at the front."""
    height, bend, brim = rng.uniform(1.25, 1.5), rng.uniform(0.25, 0.45), rng.uniform(0.9, 1.05)
    fraction = np.linspace(0, 1, 9)
    radii = 0.56 * (1 - fraction) ** 0.9 + 0.05
    lean = bend * fraction**2.5
    centers = np.stack([lean, 0.05 + height * (fraction - 0.12 * fraction**4), 0.1 * fraction**2], -1)
    band = natural((0.20, 0.16, 0.22), rng)
    gold = natural(_BRASS, rng)
    buckle = merge([box((0.3, 0.26, 0.09), gold, bevel=0.3), box((0.16, 0.13, 0.11), band)])
    return merge([
        lathe([(0, 0), (brim * 0.6, 0), (brim, 0.06), (brim, 0.12), (brim * 0.62, 0.08), (0, 0.08)], color, sides=32),
        loft(ovals(centers, np.stack([radii, radii], -1), sides=24), color),
        sphere(0.06, color, (*centers[-1],), rings=6, sides=12),
        lathe([(0.5, 0.06), (0.64, 0.07), (0.61, 0.27), (0.5, 0.28)], band, sides=24),
        buckle.turned("x", -8).moved(0, 0.18, 0.61),
    ])  # fmt: skip


def boot(color: Color, rng: np.random.Generator) -> Part:
    """A rain boot with its toe toward the front."""
    height, length = rng.uniform(1.1, 1.45), rng.uniform(0.85, 1.0)
    levels = np.array([0.1, 0.22, 0.36, 0.5, 0.62, 0.75, 0.85 * height, height])
    toe = np.array([1.0, 1.0, 0.9, 0.62, 0.28, 0.1, 0.08, 0.12]) * length
    heel = np.array([0.34, 0.35, 0.35, 0.34, 0.33, 0.34, 0.36, 0.4])
    centers = np.stack([0 * toe, levels, (toe - heel + 0.2) / 2], -1)
    half = (toe + heel + 0.2) / 2
    width = np.array([0.31, 0.33, 0.32, 0.31, 0.3, 0.31, 0.33, 0.37])
    shaft = ovals(centers, np.stack([width, half], -1), sides=24)
    sole = natural((0.16, 0.15, 0.15) if rng.random() < 0.5 else _PAPER, rng)
    bottom = ovals([(0, 0, centers[0, 2]), (0, 0.13, centers[0, 2])], [(0.36, half[0] + 0.04)] * 2, sides=24)
    rim = (centers[-1] + np.array([0, -0.06, 0]), (width[-1], half[-1]))
    top = torus(1, 0.13, shade(color, 0.8), sides=8).scaled(rim[1][0], 0.5, rim[1][1]).moved(*rim[0])
    hole = ovals([(0, height, centers[-1, 2]), (0, height + 0.015, centers[-1, 2])], [(0.34, half[-1] - 0.03)] * 2)
    return merge([loft(shaft, color), loft(bottom, sole), top, loft(hole, shade(color, 0.3))])


def sofa(color: Color, rng: np.random.Generator) -> Part:
    """A sofa facing +Z."""
    width, depth, arm = rng.uniform(1.5, 2.0), rng.uniform(0.85, 1.0), rng.uniform(0.2, 0.27)
    back, inner = rng.uniform(0.85, 1.0), width - 2 * arm
    dark, pale = shade(color, 0.8), shade(color, 1.12)
    cushions = 2 if inner > 1.2 else 1
    seat = box((inner / cushions - 0.02, 0.2, depth * 0.8), pale, (0, 0.5, 0.1), bevel=0.45)
    cushion = box((inner / cushions - 0.02, back * 0.5, 0.2), pale, bevel=0.45).turned("x", -12)
    place = merge([seat, cushion.moved(0, 0.75, -depth * 0.22)])
    seats = [place.moved(inner * ((index + 0.5) / cushions - 0.5)) for index in range(cushions)]
    leg = cylinder(0.06, 0.16, natural((0.25, 0.15, 0.08), rng), sides=10)
    return merge([
        box((width - 0.04, 0.32, depth), color, (0, 0.28, 0), bevel=0.2),
        box((width - 0.04, back, 0.24), dark, (0, 0.12 + back / 2, -depth / 2 + 0.06), bevel=0.4),
        both_sides(box((arm, 0.6, depth + 0.04), dark, (width / 2 - arm / 2, 0.42, 0.02), bevel=0.4)),
        both_sides(merge(leg.moved(width / 2 - 0.14, 0, z * depth * 0.4) for z in (-1, 1))),
        *seats,
    ])  # fmt: skip
