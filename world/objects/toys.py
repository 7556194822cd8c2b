"""Toys and other things to play with."""

from __future__ import annotations

import numpy as np

from ..colors import mix, natural, shade
from ..parts import Color, Part, around, both_sides, merge
from ..shapes import arc, box, cone, cylinder, ellipsoid, extrude, sphere, surface, torus, tube

_WHITE = np.array((0.95, 0.95, 0.94))
_BLACK = np.array((0.11, 0.11, 0.12))
_STEEL = (0.72, 0.74, 0.77)
_GOLD = (0.90, 0.72, 0.25)


def ball(color: Color, rng: np.random.Generator) -> Part:
    """A beach ball with six stripes, alternately in the color and white, always in the same orientation."""
    polar, angles = np.meshgrid(np.linspace(np.pi, 0, 17), np.radians(np.linspace(-30, 30, 9)), indexing="ij")
    stripe = np.stack([np.sin(polar) * np.sin(angles), np.cos(polar), np.sin(polar) * np.cos(angles)], -1)
    # With a random pose per object, every view could show a different ball.
    turn = rng.uniform(-4, 4)
    cap = ellipsoid((0.2, 0.03, 0.2), color, (0, 0.982, 0), rings=6, sides=16)
    return merge([
        around(surface(stripe, color, wrap_columns=False), 3, turn),
        around(surface(stripe, _WHITE, wrap_columns=False), 3, turn + 60),
        cap, cap.turned("x", 180),
    ]).turned("x", rng.uniform(24, 30)).turned("z", rng.uniform(-3, 3))  # fmt: skip


def snowman(color: Color, rng: np.random.Generator) -> Part:
    """A snowman; the color is that of the scarf."""
    low, middle, head = rng.uniform(0.52, 0.6), rng.uniform(0.38, 0.44), rng.uniform(0.29, 0.33)
    snow = natural((0.94, 0.96, 0.98), rng, 0.015)
    waist, neck = low * 1.72, low * 1.72 + middle * 0.85
    top = neck + head * 0.72
    wood = natural((0.36, 0.23, 0.12), rng)
    arm = tube(
        [(middle * 0.8, waist + 0.1, 0), (middle + 0.42, waist + rng.uniform(0.2, 0.45), 0.05)], 0.045, wood, sides=8
    )
    parts = [
        sphere(low, snow, (0, low * 0.9, 0)), sphere(middle, snow, (0, waist, 0)), sphere(head, snow, (0, top, 0)),
        torus(head * 0.82, 0.1, color, sides=10).moved(y=neck + 0.02),
        box((0.17, 0.42, 0.09), color, bevel=0.4).turned("x", -14).turned("z", 8)
        .moved(0.16, neck - 0.2, middle * 0.93),
        cone(0.085, 0.4, natural((0.95, 0.5, 0.1), rng), sides=12).pointing(0, -0.05, 1).moved(0, top, head * 0.9),
        both_sides(sphere(0.05, _BLACK, (head * 0.38, top + 0.1, head * 0.86), rings=6, sides=10)),
        *(sphere(0.055, _BLACK, (0, waist + y, np.sqrt(middle**2 - y**2)), rings=6, sides=10) for y in (-0.16, 0.0)),
        both_sides(arm),
    ]  # fmt: skip
    brim = top + head * 0.7
    hat = natural((0.13, 0.13, 0.15), rng, 0.02)
    parts += [cylinder(head * 1.15, 0.07, hat).moved(y=brim), cylinder(head * 0.8, 0.36, hat).moved(y=brim)]
    parts += [cylinder(head * 0.83, 0.09, natural((0.75, 0.14, 0.14), rng)).moved(y=brim + 0.06)]
    return merge(parts)


def robot(color: Color, rng: np.random.Generator) -> Part:
    """A standing robot."""
    width, height, head = rng.uniform(0.72, 0.85), rng.uniform(0.7, 0.82), rng.uniform(0.5, 0.6)
    steel, dark = natural(_STEEL, rng), natural((0.22, 0.23, 0.26), rng, 0.02)
    hip = 0.52
    shoulder, chin = hip + height - 0.16, hip + height + 0.1
    glow = natural((0.45, 0.92, 0.95) if rng.random() < 0.5 else (1.0, 0.85, 0.3), rng)
    eye = cylinder(0.1, 0.08, glow, sides=14).turned("x", 90)
    arm = merge([
        sphere(0.15, steel, (width / 2 + 0.1, shoulder, 0), rings=8, sides=12),
        tube([(width / 2 + 0.14, shoulder, 0), (width / 2 + 0.24, shoulder - 0.34, 0.03),
              (width / 2 + 0.2, shoulder - 0.6, 0.2)], 0.085, steel),
        box((0.22, 0.2, 0.22), color, (width / 2 + 0.2, shoulder - 0.68, 0.26), bevel=0.4),
    ])  # fmt: skip
    leg = merge([cylinder(0.12, hip, steel, sides=12), box((0.28, 0.16, 0.42), color, (0, 0.08, 0.06), bevel=0.4)])
    return merge([
        box((width, height, 0.55), color, (0, hip + height / 2, 0), bevel=0.25),
        box((width * 0.62, height * 0.42, 0.08), dark, (0, hip + height * 0.55, 0.27)),
        *(sphere(0.06, np.array(tint), (x * width, hip + height * 0.6, 0.31), rings=6, sides=10)
          for x, tint in ((-0.18, (0.9, 0.2, 0.2)), (0.0, (0.95, 0.8, 0.2)), (0.18, (0.3, 0.8, 0.35)))),
        cylinder(0.14, 0.16, steel, sides=14).moved(y=chin - 0.12),
        box((head * 1.25, head * 0.85, head), color, (0, chin + head * 0.42, 0), bevel=0.3),
        box((head * 1.0, head * 0.42, 0.06), dark, (0, chin + head * 0.5, head / 2)),
        both_sides(eye.moved(head * 0.26, chin + head * 0.5, head / 2 + 0.0)),
        box((head * 0.5, 0.06, 0.05), dark, (0, chin + head * 0.14, head / 2)),
        tube([(0, chin + head * 0.8, 0), (0, chin + head * 0.8 + 0.24, 0)], 0.04, steel, sides=8),
        sphere(0.085, glow, (0, chin + head * 0.8 + 0.28, 0), rings=8, sides=12),
        both_sides(cylinder(0.12, 0.1, steel, sides=12).turned("z", -90).moved(head * 0.6, chin + head * 0.45, 0)),
        box((width * 0.6, height * 0.5, 0.14), dark, (0, hip + height * 0.55, -0.28), bevel=0.3),
        both_sides(arm), both_sides(leg.moved(width * 0.27, 0, 0)),
    ])  # fmt: skip


def guitar(color: Color, rng: np.random.Generator) -> Part:
    """An upright guitar with its strings at the front."""
    low, high, neck = rng.uniform(0.52, 0.6), rng.uniform(0.39, 0.45), rng.uniform(0.75, 0.95)
    waist, deep = rng.uniform(0.3, 0.34), rng.uniform(0.26, 0.32)
    right = [*arc((low, low * 0.9), -90, 28, (0, low * 0.9), count=9)[:, :2], (waist, low * 1.62),
             *arc((high, high * 0.85), -22, 90, (0, low * 2.1), count=8)[:, :2]]  # fmt: skip
    outline = [*right, *((-x, y) for x, y in right[-2:0:-1])]
    top = low * 2.1 + high * 0.85
    wood, dark = natural((0.36, 0.21, 0.11), rng), natural((0.12, 0.09, 0.08), rng, 0.02)
    front = deep / 2
    peg = merge([tube([(0.12, y, 0), (0.21, y, 0)], 0.055, _WHITE, sides=6) for y in (0.07, 0.21, 0.35)])
    length = neck + low * 1.1
    strings = box(
        (0.11, length, 0.14), natural((0.90, 0.86, 0.74), rng), (0, low * 0.7 + length / 2, front + 0.02), bevel=0.05
    )
    return merge([
        extrude(outline, deep, color, bevel=0.05),
        cylinder(0.2, 0.02, mix(color, _WHITE, 0.6), sides=24).turned("x", 90).moved(0, low * 1.5, front),
        cylinder(0.16, 0.03, dark, sides=24).turned("x", 90).moved(0, low * 1.5, front),
        box((0.34, 0.08, 0.08), dark, (0, low * 0.66, front + 0.02)),
        box((0.17, neck + 0.25, 0.13), wood, (0, top + neck / 2 - 0.12, front - 0.01), bevel=0.3),
        extrude([(-0.1, 0), (0.1, 0), (0.16, 0.42), (-0.16, 0.42)], 0.12, wood, bevel=0.03)
        .moved(0, top + neck - 0.02, front - 0.04),
        both_sides(peg.moved(0, top + neck, front - 0.04)),
        strings,
    ])  # fmt: skip


def treasure_chest(color: Color, rng: np.random.Generator) -> Part:
    """A treasure chest with its lock at the front; some are open and filled with gold."""
    width, depth, height = rng.uniform(1.3, 1.5), rng.uniform(0.85, 0.95), rng.uniform(0.5, 0.6)
    gold = natural(_GOLD, rng)
    half = depth / 2
    bow = [(half * np.cos(a), half * 0.85 * np.sin(a)) for a in np.linspace(0, np.pi, 13)]
    hoop = [(x * 1.06, y * 1.06) for x, y in bow]
    bars = [-width * 0.36, width * 0.36]
    lid = merge([
        extrude(bow, width, shade(color, 1.06)).turned("y", 90),
        *(extrude(hoop, 0.13, gold).turned("y", 90).moved(x=x) for x in bars),
        box((width + 0.02, 0.07, depth + 0.04), gold, (0, 0.035, 0)),
    ]).moved(z=half)  # fmt: skip
    wide_open = rng.random() < 0.5
    lid = lid.turned("x", -rng.uniform(50, 75) if wide_open else 0).moved(0, height, -half)
    parts = [
        box((width, height, depth), color, (0, height / 2, 0), bevel=0.05),
        *(box((0.13, height, depth + 0.06), gold, (x, height / 2, 0)) for x in bars),
        box((width + 0.04, 0.08, depth + 0.06), gold, (0, 0.04, 0)),
        box((width + 0.02, 0.06, depth + 0.04), gold, (0, height - 0.03, 0)),
        lid,
        merge([box((0.26, 0.28, 0.1), gold, bevel=0.3), box((0.06, 0.12, 0.12), _BLACK)]).moved(
            0, height - 0.06, half + 0.05
        ),
    ]
    if wide_open:
        heap = ellipsoid((width * 0.42, 0.2, half * 0.82), shade(gold, 1.08), (0, height - 0.02, 0), rings=8)
        parts.append(heap)
        for _ in range(9):
            coin = cylinder(0.11, 0.04, shade(gold, 0.85), sides=12)
            coin = coin.pointing(rng.uniform(-1, 1), rng.uniform(0.8, 2), rng.uniform(-1, 1))
            x, z = rng.uniform(-0.35, 0.35) * width, rng.uniform(-0.5, 0.5) * half
            parts.append(coin.moved(x, height + 0.13, z))
    return merge(parts)


def gift(color: Color, rng: np.random.Generator) -> Part:
    """A gift; the color is that of the paper, and the ribbon is pale or gold."""
    width, height, depth = rng.uniform(1.0, 1.3), rng.uniform(0.75, 1.1), rng.uniform(0.9, 1.1)
    ribbon = natural((0.97, 0.96, 0.93) if rng.random() < 0.5 else _GOLD, rng, 0.02)
    lid = height * 0.26
    loop = torus(0.2, 0.075, ribbon, segments=18, sides=8).turned("x", 90).scaled(1.2, 0.8, 1.3).moved(x=0.26)
    return merge([
        box((width, height, depth), color, (0, height / 2, 0), bevel=0.05),
        box((width + 0.1, lid, depth + 0.1), shade(color, 0.88), (0, height, 0), bevel=0.1),
        box((0.2, height + lid / 2, depth + 0.14), ribbon, (0, (height + lid / 2) / 2 + 0.02, 0), bevel=0.05),
        box((width + 0.14, height + lid / 2, 0.2), ribbon, (0, (height + lid / 2) / 2 + 0.02, 0), bevel=0.05),
        both_sides(loop.turned("z", 22).turned("y", -20).moved(0, height + lid / 2 + 0.12, 0)),
        sphere(0.13, ribbon, (0, height + lid / 2 + 0.12, 0), rings=8, sides=12),
    ])  # fmt: skip
