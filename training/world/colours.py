"""The colour words, their synonyms, and natural colours of parts that keep their own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .parts import Colour, Real

COLOURS: dict[str, tuple[float, float, float]] = {
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
"""Display sRGB of every colour word."""

COLOUR_SYNONYMS: dict[str, str] = {
    "crimson": "red", "scarlet": "red", "ruby": "red", "cherry": "red",
    "golden": "yellow", "gold": "yellow", "lemon": "yellow",
    "emerald": "green", "lime": "green", "olive": "green",
    "azure": "blue", "navy": "blue", "cyan": "blue", "turquoise": "blue", "teal": "blue",
    "violet": "purple", "lilac": "purple", "magenta": "pink", "rose": "pink", "rosy": "pink",
    "wooden": "brown", "wood": "brown", "chocolate": "brown", "tan": "brown",
    "ivory": "white", "snowy": "white", "grey": "gray", "silver": "gray", "stone": "gray", "metal": "gray",
    "metallic": "gray", "dark": "black",
}  # fmt: skip


def natural(rgb: Sequence[Real], rng: np.random.Generator, spread: Real = 0.035) -> Colour:
    """A colour with a slight jitter per channel, kept in [0, 1]."""
    return np.clip(np.asarray(rgb, dtype=float) + rng.uniform(-spread, spread, 3), 0, 1)


def shade(colour: Colour, factor: Real) -> Colour:
    """Darker (below 1) or lighter (above 1: that much of the way from black, clipped)."""
    return np.clip(colour * factor, 0, 1)


def mix(first: Colour, second: Colour, share: Real) -> Colour:
    """`share` = 0 is the first colour, 1 the second."""
    return first * (1 - share) + second * share
