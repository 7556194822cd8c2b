"""The exact diffusion prior of the procedural world."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from ...distill.mixture import ExactPrior, GaussianMixture, MixtureCondition
from ...distill.prior import CameraBatch
from ...distill.schedule import NoiseSchedule
from ...representations import Cameras, TriangleMesh
from .captions import Caption, parse_caption, random_caption
from .kinds import KINDS
from .sampling import sample_object
from .views import render_all, shade


@dataclass
class WorldPriorConfig:
    """The exact score of a small procedural world: a test bench and an offline demonstration, not a learned model."""

    objects: Annotated[int, Interval(ge=1, le=1000)] = 8
    """Objects drawn of the prompt's caption: how varied the prior is."""
    unconditional_objects: Annotated[int, Interval(ge=1, le=1000)] = 16
    """Objects of random captions, one per kind while kinds last: what the prompt is told apart from."""
    bandwidth: Annotated[float, Interval(gt=0, le=10)] = 0.15
    """Standard deviation of a picture around each object, in [-1, 1] pixels."""
    supersample: Annotated[int, Interval(ge=1, le=16)] = 2
    """Samples per pixel side in the objects' pictures."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Which objects."""

    def build(self, device: torch.device) -> WorldPrior:
        """The world draws on the CPU, whatever `device` is. Raises ValueError for values out of range."""
        del device
        return WorldPrior(self)


@dataclass(frozen=True)
class WorldEmbedding:
    """A prompt as objects, lit and ready to draw."""

    objects: Sequence[TriangleMesh]
    others: Sequence[TriangleMesh]
    """Of random captions: what the mixture of no prompt holds beside `objects`."""
    negatives: Sequence[TriangleMesh] = ()
    """Of the negative prompt, if there is one: the unconditional mixture instead."""


class WorldPrior(ExactPrior):
    """The score of the procedural world's pictures, in closed form: a test bench and offline demonstration.

    Pictures of a caption are `mean_k N(X_k, bandwidth^2)`, with X_k the k-th object of the caption drawn at exactly the
    asked cameras, picture size and background; what the noise prediction is then, see `GaussianMixture`. Captions are
    equally likely, so the unconditional mixture gives the prompt's caption as much weight as any one other object.

    Nothing is learned: distilling it recovers objects that the world's own generators can draw, nothing else.
    """

    description = (
        "exact score of a small procedural world, computed from renderings of its own objects; "
        "a test bench and offline demonstration, not a learned model"
    )

    def __init__(self, config: WorldPriorConfig | None = None, schedule: NoiseSchedule | None = None) -> None:
        """Raises ValueError for settings out of range."""
        super().__init__(schedule or NoiseSchedule.scaled_linear(), torch.device("cpu"))
        self.config = WorldPriorConfig() if config is None else config
        counts = {name: getattr(self.config, name) for name in ("objects", "unconditional_objects", "supersample")}
        if min(counts.values()) < 1 or not self.config.bandwidth > 0 or self.config.seed < 0:
            raise ValueError(
                "the world prior needs objects, unconditional_objects and supersample >= 1, bandwidth > 0 and "
                f"seed >= 0, got {self.config}"
            )

    def embed(self, prompt: str, negative_prompt: str = "") -> WorldEmbedding:
        """Draw the prompt's objects. Raises ValueError naming the words that the world does not know."""
        own = self._objects([parse_caption(prompt)] * self.config.objects, stream=0)
        unwanted = [parse_caption(negative_prompt)] * self.config.objects if negative_prompt else []
        rng = np.random.default_rng((self.config.seed, 3))
        kinds = rng.permutation(list(KINDS)).tolist()
        captions = [random_caption(rng, kinds[i % len(kinds)]) for i in range(self.config.unconditional_objects)]
        return WorldEmbedding(own, self._objects(captions, stream=1), self._objects(unwanted, stream=2))

    @torch.no_grad()
    def condition(
        self, embedding: WorldEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> MixtureCondition:
        """Draw the components at these views; those of the other mixtures once they are asked for."""
        views = Cameras(cameras.camera_to_world, cameras.intrinsics, cameras.height, cameras.width)
        means = self._draw(embedding.objects, views, background)

        @cache
        def negative() -> GaussianMixture:
            return self._mixture(self._draw(embedding.negatives, views, background))

        @cache
        def null() -> GaussianMixture:
            others = self._draw(embedding.others, views, background)
            captions = 1 + len(embedding.others)
            own = torch.full((len(embedding.objects),), -math.log(captions * len(embedding.objects)))
            rest = torch.full((len(embedding.others),), -math.log(captions))
            return replace(self._mixture(torch.cat([means, others], 1)), log_weights=torch.cat([own, rest]))

        return MixtureCondition(self._mixture(means), negative if embedding.negatives else null, null)

    def _objects(self, captions: Iterable[Caption], stream: int) -> list[TriangleMesh]:
        """Streams are independent, so that the prompt's objects do not depend on what else is drawn."""
        rng = np.random.default_rng((self.config.seed, stream))
        return [shade(sample_object(caption, rng)) for caption in captions]

    def _draw(
        self, objects: Sequence[TriangleMesh], cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b k 3 h w"]:
        pictures = render_all(objects, cameras, background, supersample=self.config.supersample)
        return self.encode(pictures.flatten(0, 1)).reshape(pictures.shape)

    def _mixture(self, means: Float[Tensor, "b k 3 h w"]) -> GaussianMixture:
        return GaussianMixture.isotropic(means, self.config.bandwidth)
