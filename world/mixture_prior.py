"""An exact prior of high entropy with a known best scene, for measurements where the noise dominates the gradient.

For every camera, the images of a prompt are a mixture of Gaussians around one object of the world, the base:

    p(image | camera) = mean over k and signs of N(base +- texture_k, V)

Base and textures are images of the same mesh at this camera. The vertex colors of a texture are plane waves of low
frequency, fixed in 3D, so that every mean is an image of a 3D scene. The covariance V is anisotropic, with the spectrum
of natural images. The unconditional mixture contains these components, and each of them with two opposite tints of the
object:

    p(image | camera, no prompt) = mean over k, signs and j in {-1, 0, 1} of N(base +- texture_k + j tint_k, V)

**The best scene.** Both densities are unchanged if an image is reflected at the base. At the base their scores are
therefore odd functions of the noise, whose mean is zero: SDS's expected gradient vanishes at every camera, timestep and
guidance scale, exactly. That this stationary point is the maximum of the expected log-density does not follow from the
symmetry. It holds, on average over the timesteps, while the textures are weak relative to V, since the prompt's
components differ from the base in many directions, each with little probability. At the smallest timesteps alone the
components may be maxima of their own. The tests check it numerically, along textures and tints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill.basis import SeparableBasis
from steindreamer.distill.noise.schedule import NoiseSchedule
from steindreamer.distill.priors.base import CameraBatch
from steindreamer.distill.priors.mixture import (
    ExactPrior,
    GaussianMixture,
    MixtureCondition,
    natural_variances,
)
from steindreamer.representations import Cameras, TriangleMesh
from steindreamer.representations.mesh.rasterization import rasterize, resolve

from .sampling import sample_object
from .views import shade
from .wording import Wording

SUPERSAMPLE = 2
"""Samples per pixel side in the images of the base."""


@dataclass
class SceneMixtureConfig:
    """An exact mixture of many images per view, around a known best scene, for measuring estimators where the noise
    dominates their variance; not a learned model.
    """

    variations: Annotated[int, Interval(ge=1, le=100)] = 16
    """Number of textures. The prompt's mixture has twice as many components, the unconditional one six times as
    many."""
    contrast: Annotated[float, Interval(gt=0, le=1)] = 0.1
    """Root mean square of the textures and tints, for colors in [0, 1]. Above a tenth of `spread`, the object without
    texture may cease to be the best scene."""
    spread: Annotated[float, Interval(gt=0, le=10)] = 1.0
    """Standard deviation of a pixel around the mean of its component, for pixels in [-1, 1]."""
    basis: Literal["cosine", "haar"] = "haar"
    """Basis in which the covariances are diagonal. `cosine` matches the control variate `spectral`, which makes it look
    better than on a prior of another basis."""
    image_size: Annotated[int, Interval(ge=8, le=64)] = 32
    """Size of the prior's images in pixels, to which rendered images are averaged; a power of two for `haar`."""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    """Seed that selects the object, the textures and the covariances."""
    strict_words: bool = False
    """Whether a prompt with words that have no effect is rejected; false: they are logged at the start and ignored."""

    def __post_init__(self) -> None:
        if self.basis == "haar" and self.image_size & (self.image_size - 1):
            raise ValueError(
                f"image_size is {self.image_size}; the Haar basis takes powers of two: 8, 16, 32 or 64. For other "
                "sizes use basis=cosine"
            )

    def build(self, device: torch.device) -> SceneMixturePrior:
        """Build the prior, which renders on the CPU for every `device`."""
        del device
        return SceneMixturePrior(self)


@dataclass(frozen=True)
class SceneMixtureEmbedding:
    """The base of a prompt and its variations, all on the vertices of one mesh."""

    base: TriangleMesh
    """The best scene, lit."""
    textures: Float[Tensor, "k v 3"]
    """Colors that are added and subtracted, with root mean square `contrast`."""
    tints: Float[Tensor, "k v 3"]
    """Colors, constant on the object, that distinguish the components of the unconditional mixture; likewise."""


class SceneMixturePrior(ExactPrior[SceneMixtureEmbedding]):
    """An exact mixture of many images per view, symmetric about a known best scene; see this module.

    The prompt selects the object, as for the prior `world`. Only color is known. Negative prompts are refused: the best
    scene would be unknown with one.

    Example:
        >>> from steindreamer.world.mixture_prior import SceneMixturePrior
        >>> prior = SceneMixturePrior()
        >>> best = prior.embed("a red mug").base
    """

    description = (
        "exact mixture of many images per view around one object of the procedural world; for measuring gradient "
        "estimators, not a learned model"
    )

    def __init__(self, config: SceneMixtureConfig | None = None, schedule: NoiseSchedule | None = None) -> None:
        """Build the prior."""
        super().__init__(schedule or NoiseSchedule.scaled_linear(), torch.device("cpu"))
        self.config = SceneMixtureConfig() if config is None else config
        self.wording = Wording(strict=self.config.strict_words)
        size = self.config.image_size
        make = SeparableBasis.haar if self.config.basis == "haar" else SeparableBasis.cosine
        self._basis = make(3, size, size)
        generator = torch.Generator().manual_seed(self.config.seed)
        self._variances = natural_variances(self._basis, 1, generator) * self.config.spread**2

    def embed(self, prompt: str, negative_prompt: str = "") -> SceneMixtureEmbedding:
        """Build the prompt's object and its variations.

        Raises ValueError for a text without a known object, and for any negative prompt.
        """
        if negative_prompt:
            raise ValueError(
                f"the prior 'mixture' takes no negative prompt, got {negative_prompt!r}; leave it out, or use the "
                "prior 'world'"
            )
        reading, _ = self.wording.read_both(prompt, "")
        base = shade(sample_object(reading.caption, np.random.default_rng((self.config.seed, 0))))
        rng = np.random.default_rng((self.config.seed, 1))
        return SceneMixtureEmbedding(base, *self._variations(base.vertices, rng))

    def prompt_notes(self, prompt: str, negative_prompt: str = "") -> Sequence[str]:
        """Return how the prompt is read, a line each. Raises ValueError for a text without a known object."""
        return self.wording.notes(prompt, negative_prompt)

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        """Convert display sRGB in [0, 1] to pixels in [-1, 1], averaged to the prior's size. Differentiable."""
        size = self.config.image_size
        return super().encode(F.interpolate(image, (size, size), mode="area"))

    @torch.no_grad()
    def condition(
        self, embedding: SceneMixtureEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> MixtureCondition:
        """Render the components at these views; those of the unconditional mixture are composed at their first use."""
        mesh, count = embedding.base, self.config.variations
        assert mesh.colors is not None
        side = SUPERSAMPLE * self.config.image_size
        views = Cameras(cameras.camera_to_world, cameras.intrinsics, cameras.height, cameras.width).resized(side, side)
        added = torch.cat([embedding.textures, embedding.tints]).transpose(0, 1).flatten(1)
        behind = F.pad(background, (0, added.shape[1]))
        colors = torch.cat([mesh.colors, added], 1)
        images = resolve(rasterize(mesh.vertices, mesh.faces, views), mesh.faces, colors, behind, SUPERSAMPLE)
        base = 2 * images[:, None, :3] - 1
        texture, tint = (2 * images[:, 3:]).unflatten(1, (2, count, 3)).unbind(1)
        means = torch.cat([base + texture, base - texture], 1)

        @cache
        def null() -> GaussianMixture:
            both = torch.cat([tint, tint], 1)
            return self._mixture(torch.cat([means, means + both, means - both], 1))

        return MixtureCondition(self._mixture(means), null)

    def _mixture(self, means: Float[Tensor, "b k 3 s s"]) -> GaussianMixture:
        """The mixture with equal weights."""
        count = means.shape[1]
        return GaussianMixture(means, self._variances, torch.full((count,), -math.log(count)), self._basis)

    def _variations(
        self, vertices: Float[Tensor, "v 3"], rng: np.random.Generator
    ) -> tuple[Float[Tensor, "k v 3"], Float[Tensor, "k v 3"]]:
        """Textures, which are plane waves of 0.3 to 1 period per meter with a phase per channel, and tints."""
        count, contrast = self.config.variations, self.config.contrast
        direction = rng.normal(size=(count, 3))
        wave = direction / np.linalg.norm(direction, axis=1, keepdims=True) * rng.uniform(0.3, 1.0, (count, 1))
        phase = rng.uniform(0, 1, (count, 1, 3))
        turns = np.einsum("vi,ki->kv", vertices.numpy(), wave)[:, :, None] + phase
        textures = np.cos(2 * math.pi * turns)
        tints = np.broadcast_to(rng.normal(size=(count, 1, 3)), textures.shape)
        return tuple(  # pyright: ignore[reportReturnType]
            torch.from_numpy((contrast * each / np.sqrt((each**2).mean((1, 2), keepdims=True))).astype(np.float32))
            for each in (textures, tints)
        )
