"""The rendering of a training step: random cameras, rendering, shading, background, conditioning of the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import GeometryBuffers, Prior
from steindreamer.distill.control_variates.coefficients import Gram
from steindreamer.distill.variance.pullback import Pullback
from steindreamer.representations import Cameras, RenderOutput, Representation
from steindreamer.representations.background import Environment, composite

from .shading import shade
from .stage_config import StageConfig
from .train_state import snapshot_buffers
from .views import ViewsConfig, sample_views


@dataclass(frozen=True)
class TrainingView:
    """A batch of rendered views, with the inputs of the prior and the baselines."""

    cameras: Cameras
    output: RenderOutput
    """Output of the representation, with its graph, before shading and learned background."""
    image: Float[Tensor, "b 3 h w"]
    """The image to distill, with its graph: display sRGB, or normals as colors, in [0, 1]."""
    geometry: GeometryBuffers
    """Rendered geometry, detached."""
    condition: Any
    """The prior's conditioning on the prompt and these cameras, of the prior's own type."""
    render_again: Callable[[], Float[Tensor, "b 3 h w"]]
    """Function that renders `image` from the current parameters, with the same cameras and random numbers."""


class ViewRenderer:
    """Renders random views of a stage's scene for a training step."""

    def __init__(
        self,
        representation: Representation,
        prior: Prior,
        embedding: Any,
        config: StageConfig,
        environment: Environment | None = None,
    ) -> None:
        """Set up the renderer of a stage.

        Args:
            representation: the scene to render, on the prior's device.
            prior: provides the conditioning; cameras and backgrounds are created on its device.
            embedding: the prompt, as `prior.embed` returned it.
            config: resolutions, shading and the fraction of steps that distill normals; `config.views` is not used.
            environment: a learned background, which replaces the random colors.
        """
        self.representation = representation
        self.prior = prior
        self.embedding = embedding
        self.config = config
        self.environment = environment

    def __call__(self, views: ViewsConfig, progress: float, generator: torch.Generator) -> TrainingView:
        """Render a batch of views from random cameras.

        Args:
            views: distribution of the cameras and background colors, and the number of views.
            progress: fraction of the stage that is done, in [0, 1].
            generator: source of all random numbers.
        """
        config = self.config
        resolution = config.warmup_resolution if progress < config.warmup else config.resolution
        cameras, background = sample_views(views, resolution, generator, progress)
        cameras, background = cameras.to(self.prior.device), background.to(self.prior.device)
        render = self._rendering(cameras, background, progress, generator)
        output, image, behind = render()
        geometry = GeometryBuffers(
            output.opacity.detach(), output.depth.detach(), output.normal.detach(), cameras.camera_to_world
        )
        condition = self.prior.condition(self.embedding, cameras, behind)
        return TrainingView(cameras, output, image, geometry, condition, lambda: render()[1])

    def gram(self, view: TrainingView) -> Gram:
        """The map v -> J J^T v, with J = d encoded image / d parameters at the current parameters (Eq. 11)."""
        parameters = [p for p in self.representation.parameters() if p.requires_grad]
        pullback = Pullback(lambda: self.prior.encode(view.render_again()), parameters)

        def gram(v: Tensor) -> Tensor:
            # These are not the gradients of the step; renderers would count them for the densification.
            restore = snapshot_buffers(self.representation)
            product = pullback.gram(v)
            restore()
            return product

        return gram

    def _rendering(
        self, cameras: Cameras, background: Float[Tensor, "b 3"], progress: float, generator: torch.Generator
    ) -> Callable[[], tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]]:
        """Draw the random choices of a step. The returned function renders (output, image, mean background color) with
        them.
        """
        fraction = self.config.normals
        normals = fraction == 1 or (fraction > 0 and float(torch.rand((), generator=generator)) < fraction)
        shading, environment = self.config.shading, self.environment
        seed = int(torch.randint(2**62, (), generator=generator)) if shading.enabled else 0

        def render() -> tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]:
            black = torch.zeros_like(background)
            behind = black if normals or environment is not None else background
            output = self.representation.render(cameras, behind)
            if normals:
                return output, (0.5 * output.normal + 0.5) * output.opacity, black
            rgb = shade(output, cameras, behind, shading, progress, torch.Generator().manual_seed(seed))
            if environment is None:
                return output, rgb, background
            surroundings = environment(cameras)
            image = composite(replace(output, rgb=rgb), surroundings)
            return output, image, surroundings.detach().mean((2, 3))

        return render
