"""Regularizers on rendered images, which work with every representation.

Regularizers on the parameters of a scene belong to it (`Representation.regularizers`). Those that need the internals of
its renderer are in `RenderOutput.terms`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput
from steindreamer.representations.ops import normals_from_depth

Regularizer = Callable[[RenderOutput, Cameras], Float[Tensor, ""]]
"""A scalar to minimize, computed from the rendered views and their cameras: a mean over pixels and views."""

SOLID = 0.5
"""Minimum opacity of a pixel that shows a surface."""


def transparency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean opacity, which reduces haze around the object."""
    return output.opacity.mean()


def half_transparency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean of opacity * (1 - opacity), which favors empty or opaque pixels."""
    return (output.opacity * (1 - output.opacity)).mean()


def sparsity(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean of sqrt(opacity^2 + 0.01), which reduces haze; flat at opacity 0: 0.1 if empty, about 1 if opaque
    (threestudio).
    """
    return (output.opacity.square() + 0.01).sqrt().mean()


def opaque(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean binary entropy of the opacity in nats, which favors empty or opaque pixels more strongly than
    `half_transparency`.

    The form is that of threestudio and stable-dreamfusion: clamped to [0.001, 0.999], because the slope is unbounded at
    0 and 1. Pixels outside this range get no gradient.
    """
    opacity = output.opacity.clamp(1e-3, 1 - 1e-3)
    return (torch.special.entr(opacity) + torch.special.entr(1 - opacity)).mean()


def normal_consistency(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the rendered normals and those of the rendered depth (2D Gaussian splatting, eq.
    14).
    """
    normal, solid = depth_normals(output, cameras)
    cosine = (normal * output.normal[..., 1:-1, 1:-1]).sum(1, keepdim=True)
    return _mean_where(1 - cosine, solid)


def normal_smoothness(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean squared difference of neighboring normals of the rendered depth, which reduces bumps that colors do not
    show.
    """
    normal, solid = depth_normals(output, cameras)
    across = (normal[..., 1:] - normal[..., :-1]).square().sum(1, keepdim=True)
    down = (normal[..., 1:, :] - normal[..., :-1, :]).square().sum(1, keepdim=True)
    # A truncated quadratic: a sharp crease costs no more than a bump, so edges are kept.
    return _mean_where(across.clamp(max=0.5), solid[..., 1:] & solid[..., :-1]) + _mean_where(
        down.clamp(max=0.5), solid[..., 1:, :] & solid[..., :-1, :]
    )


def depth_smoothness(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
    """Mean second difference of the rendered depth, relative to it, where the image has no edge.

    Edge-aware smoothness [Godard et al. 2017, eq. 3] of second order: |w_left - 2 w + w_right| / w, and the same along
    the columns, with w = 1 / depth. A plane costs nothing at any slant, because w is linear in the pixels. Weighted by
    exp(-|rgb_right - rgb_left|), averaged over channels. The colors get no gradient, which would add edges to the
    texture where the depth is curved.
    """
    solid = (output.opacity > SOLID) & (output.depth > 0)
    inverse = 1 / torch.where(solid, output.depth, 1.0)
    rgb = output.rgb.detach()
    return _bend(inverse, rgb, solid) + _bend(inverse.mT, rgb.mT, solid.mT)


REGULARIZERS: dict[str, Regularizer] = {
    "transparency": transparency,
    "half_transparency": half_transparency,
    "sparsity": sparsity,
    "opaque": opaque,
    "normal_consistency": normal_consistency,
    "normal_smoothness": normal_smoothness,
    "depth_smoothness": depth_smoothness,
}
"""Image regularizers by their name in the setting `stages.NAME.regularizers`."""


def depth_normals(
    output: RenderOutput, cameras: Cameras
) -> tuple[Float[Tensor, "b 3 h2 w2"], Bool[Tensor, "b 1 h2 w2"]]:
    """World-space normals of the rendered depth by central differences, and the mask of valid pixels.

    Both are two pixels smaller than the image. A pixel is valid if it and its four neighbors are solid.
    """
    normal = normals_from_depth(output.depth, cameras)
    opacity = output.opacity
    least = torch.minimum(
        torch.minimum(opacity[..., 1:-1, 2:], opacity[..., 1:-1, :-2]),
        torch.minimum(opacity[..., 2:, 1:-1], opacity[..., :-2, 1:-1]),
    )
    return normal, torch.minimum(least, opacity[..., 1:-1, 1:-1]) > SOLID


def _bend(
    inverse: Float[Tensor, "b 1 h w"], rgb: Float[Tensor, "b 3 h w"], solid: Bool[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """Sum term of `depth_smoothness` along the last axis."""
    left, middle, right = inverse[..., :-2], inverse[..., 1:-1], inverse[..., 2:]
    flat = torch.exp(-(rgb[..., 2:] - rgb[..., :-2]).abs().mean(1, keepdim=True))
    bend = (left - 2 * middle + right).abs() / middle
    return _mean_where(flat * bend, solid[..., :-2] & solid[..., 1:-1] & solid[..., 2:])


def _mean_where(values: Float[Tensor, "b 1 h w"], where: Bool[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean over the selected pixels; 0 (not NaN) if there are none."""
    return torch.where(where, values, 0.0).sum() / where.sum().clamp(min=1)
