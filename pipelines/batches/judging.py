"""Scores of an unfinished run, by which a race chooses among seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from steindreamer.representations import Cameras, Representation, particles_of
from steindreamer.world import UnknownPromptError

from ..comparison.scores import Score, world_score
from ..config.run_config import RunConfig
from ..devices import device_of
from ..errors import UserError

VIEWS, SIZE = 8, 64
"""Number and size in pixels of the images that are judged."""
TOLERANCE = 0.05
"""Largest difference of depths that agree, in meters; the object has a radius of 1 m."""


@dataclass(frozen=True)
class Judgement:
    """Scores of a scene, each 0 to 1; larger is better."""

    probability: float | None
    """Probability of the prompt among all captions of the world; None without a scorer for this prompt."""
    consistency: float
    """See `view_consistency`."""

    @property
    def score(self) -> float:
        """The product of the scores that are available."""
        return self.consistency * (1.0 if self.probability is None else self.probability)


class Judge:
    """Judges the scenes of one prompt, without random numbers and without changing them."""

    def __init__(self, config: RunConfig) -> None:
        """Load the scorer of the world, if the prior is of the world."""
        self._score = _scorer(config)

    def __call__(self, scene: Representation) -> Judgement:
        """Judge a scene; the mean over its particles."""
        with torch.no_grad():
            particles = particles_of(scene)
            consistency = sum(map(view_consistency, particles)) / len(particles)
            if self._score is None:
                return Judgement(None, consistency)
            return Judgement(sum(map(self._score.of, particles)) / len(particles), consistency)


@torch.no_grad()
def view_consistency(scene: Representation, views: int = VIEWS, size: int = SIZE) -> float:
    """Fraction of the surface points seen in one view that the next view does not contradict; 0 for an empty scene.

    The views are around the object. A point is contradicted if the next view sees through it: its surface there is
    more than `TOLERANCE` behind the point, or there is none. Points hidden in the next view are accepted.
    """
    azimuth = [360.0 * index / views for index in range(views)]
    cameras = Cameras.orbit(azimuth, [15.0] * views, height=size).to(device_of(scene))
    white = torch.ones(1, 3, device=device_of(scene))
    outputs = [scene.render(cameras[index], white) for index in range(views)]
    agreeing = total = 0
    for index, output in enumerate(outputs):
        after = (index + 1) % views
        solid = output.opacity[0, 0] > 0.5
        points = cameras[index].unproject(output.depth)[0].permute(1, 2, 0)[solid]
        pixels, depth = (each[0] for each in cameras[after].project(points))
        x, y = pixels.floor().long().clamp(0, size - 1).unbind(-1)
        seen, opacity = outputs[after].depth[0, 0, y, x], outputs[after].opacity[0, 0, y, x]
        agreeing += int(((opacity > 0.5) & (depth > seen - TOLERANCE)).sum())
        total += len(points)
    return agreeing / total if total else 0.0


def _scorer(config: RunConfig) -> Score | None:
    prior: Any = config.prior
    shipped = config.names["prior"] == "world" or (config.names["prior"] == "tiny" and not prior.model)
    if not shipped:
        return None
    try:
        return world_score(config.prompt, VIEWS, SIZE)
    except (UserError, UnknownPromptError):
        return None
