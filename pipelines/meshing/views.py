"""Renders of a representation from all directions, for extraction, baking and the color check."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, Representation, sphere_of_cameras

from ..devices import device_of

_VIEWS_AT_ONCE = 4
_EMPTY_BELOW = 0.05


@dataclass(frozen=True)
class Views:
    """Images on the CPU over a black background, with their cameras."""

    cameras: Cameras
    rgb: Float[Tensor, "b 3 h w"]
    """Display sRGB in [0, 1], divided by the opacity; 0 where empty."""
    opacity: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    """Depth along the camera's z axis in meters; 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]

    def solid_level(self) -> float:
        """The opacity that separates object from background: half of the object's typical opacity.

        It is relative, so that a scene that is not fully opaque still has an outline. Raises ValueError if nothing is
        visible.
        """
        largest = float(self.opacity.max())
        if largest < _EMPTY_BELOW:
            raise ValueError(
                f"the scene is empty: largest opacity over {len(self.cameras)} views is {largest:.2f}, "
                f"at least {_EMPTY_BELOW} is needed; train longer, or look at the previews and the opacity regularizer"
            )
        body = self.opacity[self.opacity > 0.25 * largest]
        return 0.5 * float(body.median())

    def __getitem__(self, index: slice) -> Views:
        return Views(self.cameras[index], self.rgb[index], self.opacity[index], self.depth[index], self.normal[index])


@torch.no_grad()
def take_views(representation: Representation, count: int, size: int) -> Views:
    """Render `count` square views distributed over the whole sphere.

    Args:
        representation: the scene.
        count: number of views.
        size: size of a view in pixels.
    """
    return photograph(representation, sphere_of_cameras(count, height=size))


@torch.no_grad()
def photograph(representation: Representation, cameras: Cameras) -> Views:
    """Render the given cameras, a few at a time, and move the images to the CPU."""
    device = device_of(representation)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(cameras), _VIEWS_AT_ONCE):
        batch = cameras[start : start + _VIEWS_AT_ONCE].to(device)
        out = representation.render(batch, torch.zeros(len(batch), 3, device=device))
        rgb = torch.where(out.opacity > 1e-3, out.rgb / out.opacity.clamp_min(1e-3), torch.zeros_like(out.rgb))
        parts.append(tuple(t.detach().float().cpu() for t in (rgb.clamp(0, 1), out.opacity, out.depth, out.normal)))
    return Views(cameras, *(torch.cat(column) for column in zip(*parts, strict=True)))
