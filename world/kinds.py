"""Registry of all objects that the world can build."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .colors import COLORS
from .objects import buildings, creatures, food, household, nature, toys, vehicles
from .parts import Color, Part


@dataclass(frozen=True)
class Kind:
    """Description and builder of one kind of object."""

    build: Callable[[Color, np.random.Generator], Part]
    """Builder of the object, called with the color of the main part and a random number generator.

    The generator determines sizes, proportions and optional parts.
    """
    caption: str
    """Caption with {} in place of the color word."""
    default: str
    """Color of a prompt without a color word."""
    colors: tuple[str, ...] = tuple(COLORS)
    synonyms: tuple[str, ...] = ()
    """Other names in the singular; may be phrases."""
    colored: tuple[str, ...] = ()
    """Words in the singular for the part that takes the color; empty if it is the whole object."""
    others: tuple[str, ...] = ()
    """Words in the singular for parts that keep their natural colors."""
    natural: frozenset[str] = frozenset()
    """Colors of those parts; mentioning them has no effect."""


_BRIGHT = ("red", "orange", "yellow", "green", "blue", "purple", "pink")

KINDS: dict[str, Kind] = {
    "mug": Kind(household.mug, "a {} mug", "white", synonyms=("cup", "coffee mug", "coffee cup", "tea cup",
        "teacup"), others=("handle",)),
    "teapot": Kind(household.teapot, "a {} teapot", "white", synonyms=("tea pot", "kettle"), others=("handle",
        "spout", "lid")),
    "chair": Kind(household.chair, "a {} chair", "brown", others=("leg", "seat", "back")),
    "sofa": Kind(household.sofa, "a {} sofa", "blue", synonyms=("couch", "armchair", "settee"), others=("cushion",
        "leg", "arm", "back")),
    "lamp": Kind(household.lamp, "a lamp with a {} shade", "white", synonyms=("table lamp", "desk lamp",
        "bedside lamp"), colored=("shade", "lampshade"), others=("base", "foot", "stand", "light")),
    "umbrella": Kind(household.umbrella, "a {} umbrella", "red", colors=_BRIGHT, synonyms=("parasol", "sunshade"),
        others=("handle", "stripe", "panel"), natural=frozenset({"white", "brown"})),
    "hat": Kind(household.hat, "a {} wizard hat", "purple", synonyms=("wizard hat", "witch hat"), others=("brim",
        "band", "buckle"), natural=frozenset({"yellow", "black"})),
    "boot": Kind(household.boot, "a {} boot", "yellow", synonyms=("rain boot", "wellington", "shoe"),
        others=("sole",), natural=frozenset({"black", "white"})),
    "car": Kind(vehicles.car, "a {} car", "red", synonyms=("automobile", "sedan", "auto"), others=("wheel",
        "window", "headlight"), natural=frozenset({"black"})),
    "truck": Kind(vehicles.truck, "a {} truck", "blue", synonyms=("lorry", "van"), colored=("cab",),
        others=("wheel", "window", "box", "trailer"), natural=frozenset({"white", "black"})),
    "airplane": Kind(vehicles.airplane, "a {} airplane", "red", synonyms=("plane", "aeroplane", "aircraft",
        "propeller plane"), others=("wing", "propeller", "wheel", "tail"), natural=frozenset({"white"})),
    "rocket": Kind(vehicles.rocket, "a {} rocket", "red", synonyms=("rocket ship", "spaceship", "spacecraft"),
        others=("fin", "window", "flame", "nose"), natural=frozenset({"white"})),
    "sailboat": Kind(vehicles.sailboat, "a {} sailboat", "red", synonyms=("boat", "sailing boat", "sail boat",
        "ship", "yacht"), colored=("hull",), others=("sail", "mast", "flag", "deck"), natural=frozenset({"white",
        "brown"})),
    "train": Kind(vehicles.train, "a {} train", "green", synonyms=("locomotive", "steam train", "steam engine",
        "steam locomotive"), others=("wheel", "chimney", "window"), natural=frozenset({"black"})),
    "tree": Kind(nature.tree, "a {} tree", "green", colors=("green", "yellow", "orange", "red", "pink", "purple",
        "white"), colored=("leaf", "leave", "foliage", "crown", "blossom"), others=("trunk", "branch"),
        natural=frozenset({"brown"})),
    "pine tree": Kind(nature.pine_tree, "a {} pine tree", "green", colors=("green", "blue", "white", "purple"),
        synonyms=("pine", "fir", "fir tree", "christmas tree", "spruce", "conifer"), colored=("needle",),
        others=("trunk",), natural=frozenset({"brown"})),
    "cactus": Kind(nature.cactus, "a cactus in a {} pot", "orange", colored=("pot", "flowerpot", "planter"),
        others=("plant", "flower", "spine"), natural=frozenset({"green"})),
    "tulip": Kind(nature.tulip, "a {} tulip", "red", colors=("red", "orange", "yellow", "purple", "pink", "white",
        "blue", "black"), synonyms=("flower",), colored=("petal", "blossom"), others=("stem", "leaf", "leave"),
        natural=frozenset({"green"})),
    "mushroom": Kind(nature.mushroom, "a mushroom with a {} cap", "red", colors=(*_BRIGHT, "brown"),
        synonyms=("toadstool",), colored=("cap",), others=("stem", "spot", "dot"), natural=frozenset({"white"})),
    "apple": Kind(food.apple, "a {} apple", "red", colors=("red", "green", "yellow", "orange", "pink", "purple"),
        others=("leaf", "stem", "stalk"), natural=frozenset({"green", "brown"})),
    "pumpkin": Kind(food.pumpkin, "a {} pumpkin", "orange", colors=("orange", "yellow", "green", "white", "red",
        "purple", "blue"), synonyms=("jack o lantern", "jackolantern"), others=("face", "stem", "stalk", "eye",
        "mouth"), natural=frozenset({"green"})),
    "cupcake": Kind(food.cupcake, "a cupcake with {} icing", "pink", synonyms=("muffin", "cake"), colored=("icing",
        "frosting", "cream", "topping"), others=("cherry", "case", "wrapper", "sprinkle"),
        natural=frozenset({"red"})),
    "ice cream": Kind(food.ice_cream, "a {} ice cream cone", "pink", synonyms=("ice cream cone", "icecream",
        "gelato"), colored=("scoop", "ball"), others=("cone", "wafer"), natural=frozenset({"brown"})),
    "donut": Kind(food.donut, "a donut with {} icing", "pink", synonyms=("doughnut", "bagel"), colored=("icing",
        "frosting", "glaze"), others=("sprinkle", "dough"), natural=frozenset({"brown"})),
    "house": Kind(buildings.house, "a house with a {} roof", "red", synonyms=("home", "cottage", "cabin", "hut"),
        colored=("roof",), others=("wall", "door", "window", "chimney"), natural=frozenset({"white"})),
    "castle": Kind(buildings.castle, "a castle with {} roofs", "red", synonyms=("fortress", "palace"),
        colored=("roof", "tower"), others=("wall", "door", "gate"), natural=frozenset({"gray"})),
    "lighthouse": Kind(buildings.lighthouse, "a {} lighthouse", "red", synonyms=("beacon",), colored=("stripe",
        "band", "roof"), others=("door", "light", "lantern"), natural=frozenset({"white"})),
    "windmill": Kind(buildings.windmill, "a {} windmill", "white", synonyms=("mill", "wind mill"),
        colored=("tower",), others=("sail", "blade", "door", "roof"), natural=frozenset({"brown"})),
    "duck": Kind(creatures.duck, "a {} duck", "yellow", synonyms=("rubber duck", "duckling", "ducky"),
        others=("beak", "bill", "eye", "wing"), natural=frozenset({"orange"})),
    "fish": Kind(creatures.fish, "a {} fish", "orange", synonyms=("goldfish", "gold fish"), others=("fin", "tail",
        "eye", "stripe")),
    "cat": Kind(creatures.cat, "a {} cat", "orange", synonyms=("kitten", "kitty"), others=("ear", "tail", "paw",
        "eye", "nose")),
    "penguin": Kind(creatures.penguin, "a {} penguin", "black", colors=("black", "blue", "gray", "purple", "green",
        "red", "pink", "brown"), others=("beak", "belly", "foot", "feet", "flipper", "eye"),
        natural=frozenset({"white", "orange"})),
    "teddy bear": Kind(creatures.teddy_bear, "a {} teddy bear", "brown", synonyms=("teddy", "bear"), others=("ear",
        "paw", "belly", "nose", "eye")),
    "bee": Kind(creatures.bee, "a {} bee", "yellow", colors=("yellow", "orange", "red", "green", "blue", "pink",
        "white"), synonyms=("bumblebee", "honeybee", "honey bee", "bumble bee"), others=("wing", "stripe", "eye",
        "antenna", "stinger"), natural=frozenset({"black"})),
    "turtle": Kind(creatures.turtle, "a turtle with a {} shell", "green", synonyms=("tortoise", "sea turtle"),
        colored=("shell",), others=("head", "leg", "body", "skin"), natural=frozenset({"green"})),
    "ball": Kind(toys.ball, "a {} beach ball", "red", colors=_BRIGHT, synonyms=("beach ball", "beachball"),
        colored=("stripe", "striped"), natural=frozenset({"white"})),
    "snowman": Kind(toys.snowman, "a snowman with a {} scarf", "red", synonyms=("snow man",), colored=("scarf",),
        others=("hat", "nose", "carrot", "button", "arm", "eye"), natural=frozenset({"white", "black", "orange"})),
    "robot": Kind(toys.robot, "a {} robot", "blue", synonyms=("android", "droid"), others=("arm", "leg", "head",
        "eye", "antenna")),
    "guitar": Kind(toys.guitar, "a {} guitar", "orange", synonyms=("acoustic guitar", "ukulele"),
        colored=("body",), others=("neck", "string", "bridge")),
    "treasure chest": Kind(toys.treasure_chest, "a {} treasure chest", "brown", synonyms=("chest", "treasure",
        "treasure box", "pirate chest"), others=("lock", "coin", "lid", "band"), natural=frozenset({"yellow"})),
    "gift": Kind(toys.gift, "a {} gift box", "red", synonyms=("gift box", "present", "gift wrapped box",
        "birthday present"), colored=("paper",), others=("ribbon", "bow"), natural=frozenset({"white", "yellow"})),
}  # fmt: skip
