"""Usual heights of objects, for assets whose height is not set."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from steindreamer.representations import Representation
from steindreamer.world import UnknownPromptError, Wording

from .config import ExportConfig

logger = logging.getLogger(__name__)

HEIGHTS = {
    "mug": 0.1, "teapot": 0.18, "chair": 0.9, "sofa": 0.85, "lamp": 0.5, "umbrella": 0.9, "hat": 0.3, "boot": 0.3,
    "car": 1.5, "truck": 3.2, "airplane": 2.8, "rocket": 40.0, "sailboat": 10.0, "train": 4.0, "tree": 6.0,
    "pine tree": 8.0, "cactus": 0.3, "tulip": 0.4, "mushroom": 0.1, "apple": 0.08, "pumpkin": 0.25, "cupcake": 0.08,
    "ice cream": 0.15, "donut": 0.04, "house": 7.0, "castle": 20.0, "lighthouse": 30.0, "windmill": 15.0,
    "duck": 0.08, "fish": 0.15, "cat": 0.3, "penguin": 0.7, "teddy bear": 0.35, "bee": 0.015, "turtle": 0.25,
    "ball": 0.22, "snowman": 1.6, "robot": 1.6, "guitar": 1.0, "treasure chest": 0.5, "gift": 0.25,
}  # fmt: skip
"""Usual height in meters of every kind of object that prompts are searched for; a duck is a rubber duck."""


class UsualHeight(NamedTuple):
    """A kind of object and its usual height in meters."""

    kind: str
    meters: float


def usual_height(prompt: str) -> UsualHeight | None:
    """The usual height of the object that a prompt names, for any prior; None if it names none of `HEIGHTS`.

    Example:
        >>> from steindreamer.pipelines.export.sizes import usual_height
        >>> usual_height("a shiny red coffee mug")
        UsualHeight(kind='mug', meters=0.1)
    """
    try:
        kind = Wording().read(prompt).caption.kind
    except UnknownPromptError:
        return None
    return UsualHeight(kind, HEIGHTS[kind])


def with_usual_height(config: ExportConfig, scene: Representation, prompt: str) -> ExportConfig:
    """The settings with the usual height of the prompt's object, unless a height is set or the scene is from a file."""
    usual = usual_height(prompt)
    if config.height_meters is not None or scene.placement is not None or usual is None:
        return config
    logger.info(f"height {usual.meters:g} m, usual for a {usual.kind} (export.height_meters=... sets another)")
    return replace(config, height_meters=usual.meters)
