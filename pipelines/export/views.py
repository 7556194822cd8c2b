"""A representation photographed from all around: what extraction, baking and the colour check look at."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...representations import Cameras, Representation, sphere_of_cameras
from ..devices import device_of

_VIEWS_AT_ONCE = 4
_EMPTY_BELOW = 0.05


@dataclass(frozen=True)
class Views:
    """Pictures on the CPU over a black background, with the cameras that took them."""

    cameras: Cameras
    rgb: Float[Tensor, "b 3 h w"]
    """Display sRGB in [0, 1], the background divided out; 0 where empty."""
    opacity: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    """z-depth in metres; 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]

    def solid_level(self) -> float:
        """The opacity that separates object from background: half of what the object's body reaches.

        Relative, so that a scene that never became quite opaque still has an outline.
        Raises ValueError if nothing is visible.
        """
        largest = float(self.opacity.max())
        if largest < _EMPTY_BELOW:
            raise ValueError(
                f"the scene is empty: largest opacity over {len(self.cameras)} views is {largest:.2f}, "
                f"at least {_EMPTY_BELOW} is needed; train longer, or look at the previews and the opacity regulariser"
            )
        body = self.opacity[self.opacity > 0.25 * largest]
        return 0.5 * float(body.median())

    def __getitem__(self, index: slice) -> Views:
        return Views(self.cameras[index], self.rgb[index], self.opacity[index], self.depth[index], self.normal[index])


@torch.no_grad()
def take_views(representation: Representation, count: int, size: int) -> Views:
    """Render `count` square views spread over the whole sphere."""
    return photograph(representation, sphere_of_cameras(count, height=size))


@torch.no_grad()
def photograph(representation: Representation, cameras: Cameras) -> Views:
    """Render the given cameras, a few at a time, and bring the pictures to the CPU."""
    device = device_of(representation)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(cameras), _VIEWS_AT_ONCE):
        batch = cameras[start : start + _VIEWS_AT_ONCE].to(device)
        out = representation.render(batch, torch.zeros(len(batch), 3, device=device))
        rgb = torch.where(out.opacity > 1e-3, out.rgb / out.opacity.clamp_min(1e-3), torch.zeros_like(out.rgb))
        parts.append(tuple(t.detach().float().cpu() for t in (rgb.clamp(0, 1), out.opacity, out.depth, out.normal)))
    return Views(cameras, *(torch.cat(column) for column in zip(*parts, strict=True)))
