"""Penalties on what is drawn: they work on every representation (its own `regularisers()` are on its parameters)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ..representations import Cameras, RenderOutput

Penalty = Callable[[RenderOutput, Cameras], Float[Tensor, ""]]

SOLID = 0.5
"""Opacity from which a pixel shows a surface."""


def transparency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean opacity: against haze around the object."""
    return output.opacity.mean()


def half_transparency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean of opacity * (1 - opacity): towards empty or solid pixels."""
    return (output.opacity * (1 - output.opacity)).mean()


def sparsity(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean of sqrt(opacity^2 + 0.01), against haze, flat where there is none: 0.1 if empty, 1 if full (threestudio)."""
    return (output.opacity.square() + 0.01).sqrt().mean()


def opaque(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean binary entropy of the opacity, in nats: towards empty or solid pixels, harder than `half_transparency`.

    threestudio's and stable-dreamfusion's form, clamped a thousandth away from 0 and 1, where its slope has no bound:
    pixels beyond are left alone.
    """
    opacity = output.opacity.clamp(1e-3, 1 - 1e-3)
    return (torch.special.entr(opacity) + torch.special.entr(1 - opacity)).mean()


def normal_consistency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """1 - cosine between the drawn normals and those of the drawn depth (2D Gaussian splatting, eq. 14)."""
    normal, solid = depth_normals(output, cameras)
    cosine = (normal * output.normal[..., 1:-1, 1:-1]).sum(1, keepdim=True)
    return _mean_where(1 - cosine, solid)


def normal_smoothness(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean squared difference of neighbouring normals of the drawn depth: against lumps that colours cannot show."""
    normal, solid = depth_normals(output, cameras)
    across = (normal[..., 1:] - normal[..., :-1]).square().sum(1, keepdim=True)
    down = (normal[..., 1:, :] - normal[..., :-1, :]).square().sum(1, keepdim=True)
    # A truncated quadratic: a sharp crease costs no more than a lump, so edges survive.
    return _mean_where(across.clamp(max=0.5), solid[..., 1:] & solid[..., :-1]) + _mean_where(
        down.clamp(max=0.5), solid[..., 1:, :] & solid[..., :-1, :]
    )


def depth_smoothness(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean bend of the drawn depth, relative to it, where the picture has no edge.

    Edge-aware smoothness [Godard et al. 2017, eq. 3] of second order: |w_left - 2 w + w_right| / w, and the same down
    the picture, with w = 1 / depth. A plane costs nothing at any slant, as w is then linear in the pixels. Weighted by
    exp(-|rgb_right - rgb_left|), channels averaged; the colours get no gradient, or they would pay for bends by edges.
    """
    solid = (output.opacity > SOLID) & (output.depth > 0)
    inverse = 1 / torch.where(solid, output.depth, 1.0)
    rgb = output.rgb.detach()
    return _bend(inverse, rgb, solid) + _bend(inverse.mT, rgb.mT, solid.mT)


PENALTIES: dict[str, Penalty] = {
    "transparency": transparency,
    "half_transparency": half_transparency,
    "sparsity": sparsity,
    "opaque": opaque,
    "normal_consistency": normal_consistency,
    "normal_smoothness": normal_smoothness,
    "depth_smoothness": depth_smoothness,
}
"""By the name that a stage's `regularisers` weigh them with."""


def depth_normals(
    output: RenderOutput, cameras: Cameras
) -> tuple[Float[Tensor, "b 3 h2 w2"], Bool[Tensor, "b 1 h2 w2"]]:
    """World-space normals of the drawn depth by central differences, and where they mean something.

    Both are two pixels smaller than the picture. A pixel counts if it and its four neighbours are solid.
    """
    points = cameras.unproject(output.depth)
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    down = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    # x right, y down: y cross x points back to the camera.
    normal = F.normalize(torch.linalg.cross(down, across, dim=1), dim=1, eps=1e-12)
    opacity = output.opacity
    least = torch.minimum(
        torch.minimum(opacity[..., 1:-1, 2:], opacity[..., 1:-1, :-2]),
        torch.minimum(opacity[..., 2:, 1:-1], opacity[..., :-2, 1:-1]),
    )
    return normal, torch.minimum(least, opacity[..., 1:-1, 1:-1]) > SOLID


def _bend(
    inverse: Float[Tensor, "b 1 h w"], rgb: Float[Tensor, "b 3 h w"], solid: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """`depth_smoothness` along the last axis."""
    left, middle, right = inverse[..., :-2], inverse[..., 1:-1], inverse[..., 2:]
    flat = torch.exp(-(rgb[..., 2:] - rgb[..., :-2]).abs().mean(1, keepdim=True))
    bend = (left - 2 * middle + right).abs() / middle
    return _mean_where(flat * bend, solid[..., :-2] & solid[..., 1:-1] & solid[..., 2:])


def _mean_where(values: Float[Tensor, "b 1 h w"], where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """The mean over the chosen pixels; 0 (not NaN) if there is none."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)
