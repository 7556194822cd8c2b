"""Check of the base color for baked light: luminance that follows the direction of the surface."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float

from ..drawing import painted_mesh
from ..finding import Finding, checked, stated
from ..subject import Subject

SAMPLES = 8_000
"""Points on the surface, distributed by area."""
ONE_COLOR = 0.05
"""Range of chromaticities that count as one color, whose mean luminance is not taken for light."""
LIMIT = 0.15
"""Largest standard deviation; lit images of the included world have 0.07 (benchmarks/asset_measures.py)."""
DIRECTION = 0.25
"""Difference of unit normals that counts as another direction."""
DIRECTIONS = 18
"""Fewest distinct directions: with fewer, nine harmonics fit any colors of the sides."""
DARKEST = 0.01
"""Linear luminance below which the logarithm says nothing."""


def baked_light(subject: Subject) -> Iterator[Finding]:
    """Standard deviation of the logarithm of luminance as far as the normal explains it.

    Each color has its own mean luminance; the rest is fitted by spherical harmonics of
    second order of the normal, which hold all the light of a diffuse surface [Ramamoorthi and Hanrahan 2001].
    """
    materials = [subject.file.materials[index] for index in subject.file.used_materials]
    if not any(material.paint.texture for material in materials) or not subject.surface.areas.any():
        return
    colors, normals = _samples(subject)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    luminance = linear @ np.array([0.2126, 0.7152, 0.0722])
    lit = luminance > DARKEST
    if lit.sum() < 1000:
        yield stated("baked-light", "not measured", "the base color is black nearly everywhere")
        return
    directions = _directions(normals)
    if directions < DIRECTIONS:
        yield stated("baked-light", "not measured", f"the surface has only about {directions:.0f} directions")
        return
    luminance, linear, normals = np.log(luminance[lit]), linear[lit], normals[lit]
    # Texels of one chromaticity are one color, whatever their luminance.
    chroma = np.round(linear[:, :2] / linear.sum(1, keepdims=True) / ONE_COLOR)
    cluster = np.unique(chroma @ (1000, 1), return_inverse=True)[1]
    mean = np.bincount(cluster, luminance) / np.bincount(cluster)
    rest = luminance - mean[cluster]
    basis = _harmonics(normals)
    explained = basis @ np.linalg.lstsq(basis, rest, rcond=None)[0]
    deviation = float(explained.std())
    yield checked(
        "baked-light",
        round(deviation, 3),
        f"at most {LIMIT:.0%} of luminance that follows the normal",
        deviation <= LIMIT,
        "remove shading and shadows from the base color; they stay when the light of the scene moves",
        where=[material.name for material in materials],
    )


def _directions(normals: Float[np.ndarray, "n 3"]) -> float:
    """Effective number of distinct directions: the exponential of their entropy."""
    key = np.round(normals / DIRECTION) @ (10_000, 100, 1)
    weights = np.unique(key, return_counts=True)[1] / len(key)
    return float(np.exp(-(weights * np.log(weights)).sum()))


def _samples(subject: Subject) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """Base color (display sRGB) and unit normal at random points of the surface."""
    surface = subject.surface
    generator = np.random.default_rng(0)
    weights = surface.areas / surface.areas.sum()
    faces = generator.choice(len(weights), SAMPLES, p=weights)
    first, second = np.sqrt(generator.random(SAMPLES)), generator.random(SAMPLES)
    corners = np.stack([1 - first, first * (1 - second), first * second], 1)
    mesh = painted_mesh(subject)
    colors = mesh.colors_at(torch.from_numpy(faces), torch.from_numpy(corners).float())
    normals = surface.crosses[faces] / (2 * surface.areas[faces, None])
    return colors.double().numpy(), normals


def _harmonics(normals: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 9"]:
    x, y, z = normals.T
    return np.stack([np.ones_like(x), x, y, z, x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1], 1)


CHECKS = (baked_light,)
