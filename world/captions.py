"""Captions of the world: one kind of object in one color."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .kinds import KINDS


class UnknownPromptError(ValueError):
    """The prompt names no object that is known, or words that are not known where none is ignored."""


@dataclass(frozen=True)
class Caption:
    """A kind of object and its color."""

    kind: str
    """Key of `KINDS`."""
    color: str
    """Key of `COLORS`: the color of the kind's main part."""
    text: str
    """Canonical wording, such as "a red mug"."""


def caption_of(kind: str, color: str) -> Caption:
    """Return the canonical caption. Raises UnknownPromptError if the kind does not come in that color."""
    if color not in KINDS[kind].colors:
        raise UnknownPromptError(f"no {color} {kind}: it comes in {', '.join(KINDS[kind].colors)}")
    text = KINDS[kind].caption.format(color)
    return Caption(kind, color, re.sub(r"\ba (?=[aeiou])", "an ", text))


def random_caption(rng: np.random.Generator, kind: str | None = None) -> Caption:
    """Draw a caption uniformly: any kind, or the given one, in any of its colors."""
    name = kind if kind is not None else tuple(KINDS)[rng.integers(len(KINDS))]
    colors = KINDS[name].colors
    return caption_of(name, colors[rng.integers(len(colors))])
