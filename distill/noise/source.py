"""Sources of the noise of a draw: independent normal noise, or one of your own."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry_buffers import GeometryBuffers


@runtime_checkable
class NoiseSource(Protocol):
    """Draws the noise that is added to the encoded images of a step.

    Each image's noise must be standard normal given its image, camera and timestep; otherwise control variates are
    biased. The noise of different images and steps may be correlated, such as noise that is fixed to the surface. A
    call must not change the source, because measurements of the variance call it too. The buffers of an `nn.Module`,
    such as a volume of noise, are part of the checkpoints.
    """

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        timestep: Int64[Tensor, " b"],
        geometry: GeometryBuffers,
        generator: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Draw the noise of one step.

        Args:
            clean: the encoded images, float32; the noise has their shape and device.
            timestep: timestep of each image.
            geometry: rendered geometry and cameras of the views.
            generator: the source of all random numbers, on its own device.
        """
        ...


def independent_noise(
    clean: Float[Tensor, "b c h w"],
    timestep: Int64[Tensor, " b"],
    geometry: GeometryBuffers,
    generator: torch.Generator,
) -> Float[Tensor, "b c h w"]:
    """Standard normal noise, independent for every image, pixel and step."""
    return torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
