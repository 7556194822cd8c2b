"""The rendering of a training step: random cameras, rendering, shading, background, conditioning of the prior."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import GeometryBuffers, Prior
from steindreamer.distill.control_variates.coefficients import Gram
from steindreamer.distill.priors.modalities import OVER_BACKGROUND, background_of, condition
from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.distill.variance.pullback import Pullback
from steindreamer.representations import Cameras, Ensemble, RenderOutput, Representation
from steindreamer.representations.background import Environment, composite

from .modalities import conditioned_as, draw_modality, modality_image
from .scene_buffers import snapshot_buffers
from .shading import shade
from .stage_config import StageConfig
from .views import ViewsConfig, sample_views


@dataclass(frozen=True)
class TrainingView:
    """A batch of rendered views, with the inputs of the prior and the baselines."""

    cameras: Cameras
    output: RenderOutput
    """Output of the representation, with its graph, before shading and learned background."""
    image: Float[Tensor, "b 3 h w"]
    """The image to distill, with its graph, in [0, 1]."""
    geometry: GeometryBuffers
    """Rendered geometry, detached."""
    condition: Any
    """The prior's conditioning on the prompt, these cameras and the modality, of the prior's own type."""
    render_again: Callable[[], tuple[RenderOutput, Float[Tensor, "b 3 h w"]]]
    """Function that renders `output` and `image` from the current parameters, with the same cameras and random
    numbers."""
    modality: str = "color"
    """The modality of the image."""


class ViewRenderer:
    """Renders random views of a stage's scene for a training step."""

    def __init__(
        self,
        representation: Representation,
        prior: Prior,
        embedding: Any,
        config: StageConfig,
        environment: Environment | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Set up the renderer of a stage.

        Args:
            representation: the scene to render, on the prior's device.
            prior: provides the conditioning; cameras and backgrounds are created on its device.
            embedding: the prompt, as `prior.embed` returned it.
            config: resolutions, shading and the fractions of the modalities; `config.views` is not used.
            environment: a learned background, which replaces the random colors.
            ranks: the processes that share the views of a step.
        """
        self.representation = representation
        self.prior = prior
        self.embedding = embedding
        self.config = config
        self.environment = environment
        self.ranks = ranks

    def __call__(
        self, views: ViewsConfig, progress: float, generator: torch.Generator, modality: str | None = None
    ) -> TrainingView:
        """Render a batch of views from random cameras: those of this process.

        Args:
            views: distribution of the cameras and background colors, and the number of views.
            progress: fraction of the stage that is done, in [0, 1].
            generator: source of all random numbers.
            modality: the modality of the images; drawn if None.
        """
        config = self.config
        resolution = config.warmup_resolution if progress < config.warmup else config.resolution
        cameras, background = sample_views(views, resolution, generator, progress)
        cameras = self.ranks.own(cameras).to(self.prior.device)
        background = self.ranks.own(background).to(self.prior.device)
        modality = modality or draw_modality(config.fractions, generator)
        render = self._rendering(cameras, background_of(modality, background), modality, progress, generator)
        output, image, behind = render()
        geometry = GeometryBuffers(
            output.opacity.detach(),
            output.depth.detach(),
            output.normal.detach(),
            cameras.camera_to_world,
            cameras.intrinsics,
        )
        known_as = conditioned_as(modality, config)
        conditions = condition(self.prior, self.embedding, cameras, behind, known_as)
        return TrainingView(cameras, output, image, geometry, conditions, lambda: render()[:2], modality)

    def gram(self, view: TrainingView) -> Gram:
        """The map v -> J J^T v, with J = d encoded image / d parameters at the current parameters (Eq. 11).

        The images are those of all processes, which must call it together.
        """
        parameters = [p for p in self.representation.parameters() if p.requires_grad]
        pullback = Pullback(lambda: self.prior.encode(view.render_again()[1]), parameters)

        def gram(v: Tensor) -> Tensor:
            # These are not the gradients of the step; renderers would count them for the densification.
            restore = snapshot_buffers(self.representation)
            direction = pullback.vjp(self.ranks.own(v))
            self.ranks.sum_(direction)
            product = pullback.jvp(direction)
            restore()
            return self.ranks.gather(product)

        return gram

    def _sharing(self) -> AbstractContextManager[None]:
        """Within the context, an ensemble renders this process's views with the particles that are due for them."""
        scene, ranks = self.representation, self.ranks
        return scene.sharing(ranks.rank, ranks.count) if isinstance(scene, Ensemble) else nullcontext()

    def _rendering(
        self,
        cameras: Cameras,
        background: Float[Tensor, "b 3"],
        modality: str,
        progress: float,
        generator: torch.Generator,
    ) -> Callable[[], tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]]:
        """Draw the random choices of a step. The returned function renders (output, image, mean background color) with
        them.
        """
        shading = self.config.shading
        environment = self.environment if modality in OVER_BACKGROUND else None
        seed = int(torch.randint(2**62, (), generator=generator)) if shading.enabled else 0

        def render() -> tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]:
            behind = background if environment is None else torch.zeros_like(background)
            with self._sharing():
                output = lit = self.representation.render(cameras, behind)
            if modality == "color":
                random = torch.Generator().manual_seed(seed)
                lit = replace(output, rgb=shade(output, cameras, behind, shading, progress, random, self.ranks))
            image = modality_image(modality, lit, cameras, self.config)
            if environment is None:
                return output, image, background
            surroundings = environment(cameras)
            return output, composite(replace(output, rgb=image), surroundings), surroundings.detach().mean((2, 3))

        return render
