"""The smallest rectangle around points in the plane."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull


def lying(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The points rotated so that their smallest rectangle, which has a side of their convex hull, is axis-aligned and
    at least as wide as high.
    """
    hull = points[ConvexHull(points, qhull_options="QJ").vertices]
    sides = np.roll(hull, -1, 0) - hull
    sides /= np.linalg.norm(sides, axis=1, keepdims=True).clip(min=1e-30)
    across = quarter_turn(sides)
    extent = np.stack([np.ptp(hull @ axes.T, axis=0) for axes in (sides, across)])
    smallest = np.argmin(extent[0] * extent[1])
    turned = (points - hull.mean(0)) @ np.stack([sides[smallest], across[smallest]], 1)
    return turned if extent[0, smallest] >= extent[1, smallest] else quarter_turn(turned)


def quarter_turn(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """The points rotated by 90 degrees counterclockwise."""
    return np.stack([-points[:, 1], points[:, 0]], 1)
