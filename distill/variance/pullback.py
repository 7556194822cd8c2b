"""Products with the Jacobian of a rendering from both sides, for any renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Pullback:
    """The Jacobian J = d render / d parameters: `vjp` by automatic differentiation, `jvp` by a central difference.

    The renderer must only support `backward` (forward-mode or double backward would exclude custom rasterizers).
    `render` must be deterministic between calls, in float32 or better: freeze ray jitter, background and occupancy.
    """

    def __init__(
        self, render: Callable[[], Tensor], parameters: Sequence[Tensor], *, relative_step: float = 1e-3
    ) -> None:
        """Create a pullback.

        Args:
            render: computes the image from the parameters' current values.
            parameters: the tensors with respect to which J is taken.
            relative_step: the finite difference changes all parameters together by this fraction of their norm.
        """
        self.render, self.parameters, self.relative_step = render, list(parameters), relative_step

    def vjp(self, v: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """The product J^T v, one tensor per parameter."""
        with torch.enable_grad():
            image = self.render()
        gradients = torch.autograd.grad(image, self.parameters, v.to(image.dtype), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]

    @torch.no_grad()
    def jvp(self, r: Sequence[Tensor]) -> Float[Tensor, "b c h w"]:
        """The product J r. Parameters are changed for the two renders and restored bit for bit."""
        length = _norm(r)
        if length == 0:
            return torch.zeros_like(self.render())
        step = self.relative_step * max(_norm(self.parameters), 1e-6) / length
        kept = [p.detach().clone() for p in self.parameters]
        images = []
        try:
            for sign in (1, -1):
                for parameter, original, direction in zip(self.parameters, kept, r, strict=True):
                    parameter.copy_(original + sign * step * direction)
                images.append(self.render())
        finally:
            for parameter, original in zip(self.parameters, kept, strict=True):
                parameter.copy_(original)
        return (images[0] - images[1]) / (2 * step)

    def gram(self, v: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The product J J^T v, computed by one backward pass and three renders."""
        return self.jvp(self.vjp(v))


def _norm(tensors: Sequence[Tensor]) -> float:
    return sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5
