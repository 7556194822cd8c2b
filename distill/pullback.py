"""The Jacobian of a rendering, from both sides, for any renderer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class Pullback:
    """J = d render / d parameters: `vjp` by automatic differentiation, `jvp` by a central difference of two renders.

    Needs nothing of the renderer but `backward` (forward-mode or double backward would exclude custom rasterisers).
    `render` must be deterministic between calls: freeze ray jitter, background and occupancy; float32 or better.
    """

    def __init__(
        self, render: Callable[[], Tensor], parameters: Sequence[Tensor], *, relative_step: float = 1e-3
    ) -> None:
        """`relative_step`: the finite difference moves all parameters together by this fraction of their norm."""
        self.render, self.parameters, self.relative_step = render, list(parameters), relative_step

    def vjp(self, v: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """J^T v, one tensor per parameter."""
        with torch.enable_grad():
            image = self.render()
        gradients = torch.autograd.grad(image, self.parameters, v.to(image.dtype), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, gradients, strict=True)]

    @torch.no_grad()
    def jvp(self, r: Sequence[Tensor]) -> Float[Tensor, "b c h w"]:
        """J r. The parameters are moved for the two renders and restored to the bit."""
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
        """J J^T v: one backward and three renders."""
        return self.jvp(self.vjp(v))


def _norm(tensors: Sequence[Tensor]) -> float:
    return sum(float(t.detach().double().square().sum()) for t in tensors) ** 0.5
