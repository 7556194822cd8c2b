"""Color words with their synonyms, and natural colors of parts that do not take the caption's color."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .parts import Color, Real

COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.83, 0.11, 0.11),
    "orange": (0.95, 0.49, 0.08),
    "yellow": (0.96, 0.82, 0.13),
    "green": (0.16, 0.60, 0.21),
    "blue": (0.13, 0.31, 0.83),
    "purple": (0.50, 0.19, 0.69),
    "pink": (0.96, 0.52, 0.70),
    "brown": (0.49, 0.30, 0.15),
    "white": (0.94, 0.94, 0.92),
    "gray": (0.52, 0.53, 0.55),
    "black": (0.12, 0.12, 0.13),
}
"""Display sRGB value of every color word."""

COLOR_SYNONYMS: dict[str, str] = {
    "crimson": "red", "scarlet": "red", "ruby": "red", "cherry": "red",
    "golden": "yellow", "gold": "yellow", "lemon": "yellow",
    "emerald": "green", "lime": "green", "olive": "green",
    "azure": "blue", "navy": "blue", "cyan": "blue", "turquoise": "blue", "teal": "blue",
    "violet": "purple", "lilac": "purple", "magenta": "pink", "rose": "pink", "rosy": "pink",
    "wooden": "brown", "wood": "brown", "chocolate": "brown", "tan": "brown",
    "ivory": "white", "snowy": "white", "grey": "gray", "silver": "gray", "stone": "gray", "metal": "gray",
    "metallic": "gray", "dark": "black",
}  # fmt: skip


def natural(rgb: Sequence[Real], rng: np.random.Generator, spread: Real = 0.035) -> Color:
    """Jitter a color slightly per channel; the result is clipped to [0, 1]."""
    return np.clip(np.asarray(rgb, dtype=float) + rng.uniform(-spread, spread, 3), 0, 1)


def shade(color: Color, factor: Real) -> Color:
    """Darken a color (`factor` below 1) or lighten it (above 1) by scaling; the result is clipped."""
    return np.clip(color * factor, 0, 1)


def mix(first: Color, second: Color, fraction: Real) -> Color:
    """Blend two colors; `fraction` = 0 gives the first one, 1 the second."""
    return first * (1 - fraction) + second * fraction
