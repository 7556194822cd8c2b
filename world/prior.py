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

from steindreamer.distill.noise.schedule import NoiseSchedule
from steindreamer.distill.priors.base import CameraBatch
from steindreamer.distill.priors.mixture import ExactPrior, GaussianMixture, MixtureCondition
from steindreamer.distill.priors.modalities import MODALITIES, OVER_BACKGROUND, background_of, encode
from steindreamer.representations import Cameras, TriangleMesh

from .captions import Caption, random_caption
from .kinds import KINDS
from .sampling import sample_object
from .views import Light, render_all, render_surfaces, shade
from .wording import Wording


@dataclass
class WorldPriorConfig:
    """The exact score of a small procedural world, for tests and offline demonstrations; not a learned model."""

    objects: Annotated[int, Interval(ge=1, le=1000)] = 8
    """Number of objects drawn from the prompt's caption; more objects make the prior more varied."""
    unconditional_objects: Annotated[int, Interval(ge=1, le=1000)] = 16
    """Number of objects of random captions in the unconditional mixture, one per kind while kinds last."""
    bandwidth: Annotated[float, Interval(gt=0, le=10)] = 0.15
    """Standard deviation of the images around each object, for pixels in [-1, 1]."""
    supersample: Annotated[int, Interval(ge=1, le=16)] = 2
    """Samples per pixel side in the images of the objects."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Seed that selects the objects."""
    strict_words: bool = False
    """Whether a prompt with words that have no effect is rejected; false: they are logged at the start and ignored."""

    def build(self, device: torch.device) -> WorldPrior:
        """Build the prior, which renders on the CPU for every `device`. Raises ValueError for invalid settings."""
        del device
        return WorldPrior(self)


@dataclass(frozen=True)
class WorldEmbedding:
    """Unlit objects of a prompt, ready to render."""

    objects: Sequence[TriangleMesh]
    others: Sequence[TriangleMesh]
    """Objects of random captions, which the unconditional mixture contains besides `objects`."""
    negatives: Sequence[TriangleMesh] = ()
    """Objects of the negative prompt; empty if there is none."""


class WorldPrior(ExactPrior[WorldEmbedding]):
    """Exact score of the procedural world's images in closed form, for tests and offline demonstrations.

    Images of a caption are `mean_k N(X_k, bandwidth^2)`, where X_k is the k-th object of the caption, rendered with
    exactly the requested cameras, image size, background and modality; see `GaussianMixture` for the noise prediction.
    Each modality is a mixture of its own: a normal map says nothing about which object a color image shows. All
    captions are equally likely, so the unconditional mixture gives the prompt's caption as much weight as any other
    single object.

    Nothing is learned: distilling this prior only recovers objects that the world's generators can build.
    """

    description = (
        "exact score of a small procedural world, computed from renderings of its own objects; for tests and offline "
        "demonstrations, not a learned model"
    )

    modalities = MODALITIES
    """It knows them all; color is lit by the default `Light`."""
    crops = True
    """It renders its objects with any cameras."""

    def __init__(self, config: WorldPriorConfig | None = None, schedule: NoiseSchedule | None = None) -> None:
        """Build the prior. Raises ValueError for settings out of range."""
        super().__init__(schedule or NoiseSchedule.scaled_linear(), torch.device("cpu"))
        self.config = WorldPriorConfig() if config is None else config
        counts = {name: getattr(self.config, name) for name in ("objects", "unconditional_objects", "supersample")}
        if min(counts.values()) < 1 or not self.config.bandwidth > 0 or self.config.seed < 0:
            raise ValueError(
                "the world prior needs objects, unconditional_objects and supersample >= 1, bandwidth > 0 and "
                f"seed >= 0, got {self.config}"
            )
        self.wording = Wording(strict=self.config.strict_words)

    def embed(self, prompt: str, negative_prompt: str = "") -> WorldEmbedding:
        """Build the objects of the prompts. Raises ValueError for a text without a known object."""
        reading, negative = self.wording.read_both(prompt, negative_prompt)
        own = self._objects([reading.caption] * self.config.objects, stream=0)
        unwanted = [negative.caption] * self.config.objects if negative else []
        rng = np.random.default_rng((self.config.seed, 3))
        kinds = rng.permutation(list(KINDS)).tolist()
        captions = [random_caption(rng, kinds[i % len(kinds)]) for i in range(self.config.unconditional_objects)]
        return WorldEmbedding(own, self._objects(captions, stream=1), self._objects(unwanted, stream=2))

    def prompt_notes(self, prompt: str, negative_prompt: str = "") -> Sequence[str]:
        """Return how the prompts are read, a line each. Raises ValueError for a text without a known object."""
        return self.wording.notes(prompt, negative_prompt)

    @torch.no_grad()
    def condition(
        self, embedding: WorldEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> MixtureCondition:
        """Render the mixture components at these views; those of the other mixtures are rendered at their first use.

        Raises ValueError for an unknown modality.
        """
        views = Cameras(cameras.camera_to_world, cameras.intrinsics, cameras.height, cameras.width)
        behind = background_of(modality, background)

        def means_of(objects: Sequence[TriangleMesh]) -> Float[Tensor, "b k 3 h w"]:
            return self._draw(objects, views, behind, modality)

        means = means_of(embedding.objects)

        @cache
        def negative() -> GaussianMixture:
            return self._mixture(means_of(embedding.negatives))

        @cache
        def null() -> GaussianMixture:
            others = means_of(embedding.others)
            captions = 1 + len(embedding.others)
            own = torch.full((len(embedding.objects),), -math.log(captions * len(embedding.objects)))
            rest = torch.full((len(embedding.others),), -math.log(captions))
            return replace(self._mixture(torch.cat([means, others], 1)), log_weights=torch.cat([own, rest]))

        return MixtureCondition(self._mixture(means), negative if embedding.negatives else null, null)

    def _objects(self, captions: Iterable[Caption], stream: int) -> list[TriangleMesh]:
        """Build objects; streams are independent, so the prompt's objects do not depend on what else is drawn."""
        rng = np.random.default_rng((self.config.seed, stream))
        return [sample_object(caption, rng) for caption in captions]

    def _draw(
        self, objects: Sequence[TriangleMesh], cameras: Cameras, background: Float[Tensor, "b 3"], modality: str
    ) -> Float[Tensor, "b k 3 h w"]:
        """Images of each object in one modality, in the prior's space."""
        samples = self.config.supersample
        if modality in OVER_BACKGROUND:
            drawn = [shade(mesh) for mesh in objects] if modality == "color" else objects
            images = render_all(drawn, cameras, background, supersample=samples)
        else:
            surfaces = [render_surfaces(mesh, Light(), cameras, supersample=samples) for mesh in objects]
            encoded = [encode(modality, cameras=cameras, **each.buffers) for each in surfaces]
            images = torch.stack(encoded, 1)
        return self.encode(images.flatten(0, 1)).reshape(images.shape)

    def _mixture(self, means: Float[Tensor, "b k 3 h w"]) -> GaussianMixture:
        return GaussianMixture.isotropic(means, self.config.bandwidth)
