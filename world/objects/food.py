"""Food."""

from __future__ import annotations

import numpy as np

from ..colors import mix, natural, shade
from ..parts import Color, Part, around, merge
from ..shapes import Points, box, cylinder, ellipsoid, extrude, lathe, sphere, surface, torus, tube

_BAKED = (0.83, 0.60, 0.33)
_CHERRY = (0.80, 0.08, 0.12)
_STALK = (0.36, 0.23, 0.12)
_LEAF = (0.25, 0.58, 0.20)


def _lobed(profile: Points, lobes: int, depth: float, color: Color, *, columns: int = 6) -> Part:
    """Closed lathe whose radius varies `lobes` times around by the fraction `depth`; `columns` per lobe."""
    points = np.array(profile, dtype=float)
    angles = np.linspace(0, 2 * np.pi, lobes * columns, endpoint=False)
    swell = 1 - depth * np.abs(np.cos(angles * lobes / 2)) ** 3
    radius = points[:, :1] * swell
    return surface(np.stack([radius * np.sin(angles), points[:, 1:] + 0 * angles, radius * np.cos(angles)], -1), color)


def apple(color: Color, rng: np.random.Generator) -> Part:
    """An apple with a leaf on the right."""
    tall, taper = rng.uniform(0.92, 1.04), rng.uniform(0.07, 0.12)
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20)
    # A sphere with a deep dent at the top and a shallow one at the bottom, widest above the middle.
    reach = (
        1 - 0.5 * np.exp(-(((np.pi / 2 - angles) / 0.5) ** 2)) - 0.14 * np.exp(-(((np.pi / 2 + angles) / 0.35) ** 2))
    )
    radius, height = reach * np.cos(angles) * (1 + taper * np.sin(angles)), tall * reach * np.sin(angles)
    profile = list(zip(radius.tolist(), height.tolist(), strict=True))
    profile[0], profile[-1] = (0, profile[0][1]), (0, profile[-1][1])
    top = profile[-1][1]
    leaf = ellipsoid((0.3, 0.05, 0.15), natural(_LEAF, rng), (0.3, 0, 0), rings=8, sides=14)
    return merge([
        _lobed(profile, 5, 0.03, color),
        tube([(0, top - 0.05, 0), (0.02, top + 0.32, 0), (0.12, top + 0.58, 0)], [0.06, 0.06, 0.08],
             natural(_STALK, rng)),
        leaf.turned("z", rng.uniform(18, 36)).moved(0.04, top + 0.36, 0),
    ])  # fmt: skip


def pumpkin(color: Color, rng: np.random.Generator) -> Part:
    """A jack-o'-lantern with its carved face at the front."""
    squat, angles = rng.uniform(0.72, 0.86), np.linspace(-np.pi / 2, np.pi / 2, 16)
    dent = 0.22 * np.exp(-((np.cos(angles) / 0.35) ** 2)) * np.sign(angles)
    profile = [(float(np.cos(a)), float(squat * np.sin(a) - d)) for a, d in zip(angles, dent, strict=True)]
    profile[0], profile[-1] = (0, profile[0][1]), (0, profile[-1][1])
    dark = np.array((0.13, 0.08, 0.04))
    stem = tube(
        [(0, 0, 0), (0.02, 0.22, 0), (0.14, 0.42, 0)], [0.15, 0.11, 0.12], natural((0.36, 0.45, 0.17), rng), sides=8
    )
    eye = extrude([(-0.19, -0.11), (0.19, -0.11), (0, 0.17)], 0.3, dark).turned("x", -18).moved(0, squat * 0.34, 0.79)
    nose = extrude([(-0.1, 0), (0.1, 0), (0, 0.15)], 0.16, dark).moved(0, 0, 0.83)
    grin = []
    for step in range(-4, 5):
        tooth = (0.17, 0.24 if step % 2 else 0.13, 0.24)
        center = (0, squat * (0.011 * step**2 - 0.36), 0.8)
        grin.append(box(tooth, dark, center, bevel=0.05).turned("y", 9.5 * step))
    return merge([
        _lobed(profile, 10, 0.1, color), stem.moved(y=squat * 0.72),
        eye.turned("y", 23), eye.turned("y", -23), nose, *grin,
    ])  # fmt: skip


def cupcake(color: Color, rng: np.random.Generator) -> Part:
    """A cupcake; the color is that of the icing."""
    low, high, height = rng.uniform(0.4, 0.46), rng.uniform(0.58, 0.66), rng.uniform(0.52, 0.62)
    case = natural((0.88, 0.72, 0.52), rng)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    flute = 1 + 0.035 * np.cos(16 * angles)
    rings = [np.stack([r * flute * np.sin(angles), y + 0 * angles, r * flute * np.cos(angles)], -1)
             for r, y in ((0, 0), (low, 0), (low, 0), (high, height), (high, height), (0, height))]  # fmt: skip
    swirl, level, radius = [], height, high * 1.06
    for tier in range(3):
        swirl.append(
            torus(radius * 0.62, radius * 0.42, shade(color, 0.94 + 0.04 * tier), sides=12).moved(y=level + 0.16)
        )
        level, radius = level + 0.27, radius * 0.72
    peak = lathe([(radius * 1.2, level - 0.2), (radius * 0.9, level + 0.05), (0, level + 0.2)], color)
    parts = [merge(surface(np.stack(rings[k : k + 2]), case) for k in (0, 2, 4)), *swirl, peak]
    parts += [sphere(0.17, natural(_CHERRY, rng), (0, level + 0.2, 0), rings=8, sides=14)]
    for tint in ((0.95, 0.85, 0.2), (0.3, 0.6, 0.9), (0.96, 0.96, 0.94)):
        crumb = sphere(0.05, np.array(tint), (0, height + 0.3, high * 0.98), rings=6, sides=8)
        parts.append(around(crumb.moved(y=rng.uniform(-0.08, 0.06)), 3, rng.uniform(0, 360)))
    return merge(parts)


def ice_cream(color: Color, rng: np.random.Generator) -> Part:
    """An ice-cream cone; the color is that of the scoop."""
    scoop, cone_height = rng.uniform(0.5, 0.56), rng.uniform(1.1, 1.35)
    wafer = natural(_BAKED, rng)
    top = scoop * 0.86
    wall = lathe([(0, 0), (0.06, 0.0), (top, cone_height), (0, cone_height)], wafer)
    fraction = np.linspace(0.1, 1, 9)
    ridges = []
    for sense in (-1, 1):
        angle = sense * fraction * 1.3
        path = np.stack([top * fraction * np.sin(angle), cone_height * fraction, top * fraction * np.cos(angle)], -1)
        ridges.append(around(tube(path, 0.028, shade(wafer, 0.72), sides=5), 5))
    center = cone_height + scoop * 0.45
    parts = [wall, *ridges, torus(top, 0.06, shade(wafer, 0.9), sides=8).moved(y=cone_height)]
    parts += [sphere(scoop, color, (0, center, 0), rings=14, sides=24)]
    drip = ellipsoid((0.17, 0.2, 0.13), color, (0, cone_height + 0.02, top * 0.93), rings=8, sides=12)
    parts += [around(drip, 7, rng.uniform(0, 50))]
    if rng.random() < 0.5:
        second = mix(color, np.array((0.98, 0.95, 0.88)), 0.75)
        parts += [sphere(scoop * 0.8, second, (0, center + scoop * 0.98, 0), rings=14, sides=24)]
        center += scoop * 0.78
    stick = cylinder(0.07, 0.75, shade(wafer, 0.8), sides=12).turned("z", -30)
    return merge([*parts, stick.moved(0.22, center + scoop * 0.35, 0)])


def donut(color: Color, rng: np.random.Generator) -> Part:
    """A donut that leans back, with its icing at the front."""
    ring, thick = rng.uniform(0.58, 0.64), rng.uniform(0.3, 0.36)
    dough = torus(ring, thick, natural(_BAKED, rng), segments=32, sides=16)
    around_ring, across = np.meshgrid(
        np.linspace(0, 2 * np.pi, 48, endpoint=False), np.linspace(-0.25, np.pi + 0.25, 12), indexing="ij"
    )
    # Both edges of the icing are wavy.
    wave = 0.2 * np.sin(6 * around_ring + rng.uniform(0, 6)) * np.abs(np.cos(across)) ** 2 * np.sign(np.cos(across))
    distance, height = ring + 1.1 * thick * np.cos(across + wave), 1.1 * thick * np.sin(across + wave)
    icing = np.stack([distance * np.cos(around_ring), height, -distance * np.sin(around_ring)], -1)
    parts = [dough, surface(icing[:, ::-1], color, wrap_rows=True, wrap_columns=False)]
    tints = [(0.97, 0.96, 0.94), (0.98, 0.85, 0.2), (0.3, 0.75, 0.9), (0.55, 0.85, 0.35)]
    for index in range(20):
        crumb = ellipsoid((0.035, 0.03, 0.09), np.array(tints[index % 4]), rings=6, sides=8).turned(
            "y", rng.uniform(0, 180)
        )
        slope = rng.uniform(-0.75, 0.75)
        crumb = crumb.turned("x", np.degrees(slope)).moved(
            0, 1.12 * thick * np.cos(slope), ring + 1.12 * thick * np.sin(slope)
        )
        parts.append(crumb.turned("y", 18 * index + rng.uniform(-6, 6)))
    return merge(parts).turned("x", rng.uniform(55, 70))
