"""The register of everything the world can build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .colours import COLOURS
from .objects import buildings, creatures, household, nature, vehicles
from .parts import Colour, Part


@dataclass(frozen=True)
class Kind:
    """What can be said of one kind of object, and how it is built."""

    build: Callable[[Colour, np.random.Generator], Part]
    """The colour is the main part's; sizes, proportions and optional parts come from the generator."""
    caption: str
    """With {} for the colour word."""
    default: str
    """The colour of a prompt that names none."""
    colours: tuple[str, ...] = tuple(COLOURS)
    synonyms: tuple[str, ...] = ()
    """Other names, singular; they may be phrases."""
    coloured: tuple[str, ...] = ()
    """Words for the part that takes the colour, singular; none: the object as a whole."""
    others: tuple[str, ...] = ()
    """Words for other parts, which keep their own colours, singular."""
    natural: frozenset[str] = frozenset()
    """Colours of those other parts: naming them changes nothing."""


KINDS: dict[str, Kind] = {
    "mug": Kind(household.mug, "a {} mug", "white", synonyms=("cup", "coffee mug", "coffee cup", "tea cup", "teacup"),
                others=("handle",)),
    "teapot": Kind(household.teapot, "a {} teapot", "white", synonyms=("tea pot", "kettle"),
                   others=("handle", "spout", "lid")),
    "chair": Kind(household.chair, "a {} chair", "brown", others=("leg", "seat", "back")),
    "car": Kind(vehicles.car, "a {} car", "red", synonyms=("automobile", "sedan"), others=("wheel", "window"),
                natural=frozenset({"black"})),
    "mushroom": Kind(nature.mushroom, "a mushroom with a {} cap", "red", ("red", "orange", "yellow", "green", "blue",
                     "purple", "pink", "brown"), synonyms=("toadstool",), coloured=("cap",), others=("stem", "spot", "dot"),
                     natural=frozenset({"white"})),
    "cactus": Kind(nature.cactus, "a cactus in a {} pot", "orange", coloured=("pot", "flowerpot"), others=("plant", "flower"),
                   natural=frozenset({"green"})),
    "castle": Kind(buildings.castle, "a castle with {} roofs", "red", synonyms=("fortress",), coloured=("roof", "tower"),
                   others=("wall", "door"), natural=frozenset({"gray"})),
    "duck": Kind(creatures.duck, "a {} duck", "yellow", synonyms=("rubber duck", "duckling", "ducky"),
                 others=("beak", "bill", "eye"), natural=frozenset({"orange", "black"})),
}  # fmt: skip
