"""Noise that is fixed to the surface of the object, so that all views see the same noise at the same place.

Independent noise pulls every view in a direction of its own, and the scene becomes their average. Consistent flow
distillation (2501.05445) looks the noise up on the object instead, which follows one path of the probability flow for
the whole object. Here space is divided into cells of about one pixel, and a cell's noise is a function of its indices
and of a seed.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..geometry_buffers import GeometryBuffers

SOLID = 0.5
"""Minimum opacity of a pixel that shows a surface."""

_PRIMES = (73856093, 19349663, 83492791, 49979687)
_MASK = 0xFFFFFFFF


class SurfaceNoise:
    """A `NoiseSource` whose noise moves with the surface.

    Each image's noise is standard normal: pixels of an image that share a cell would share its noise, so all but the
    first of them get independent noise, as pixels without a surface do.
    """

    def __init__(self, seed: int = 0, cell: float = 1.0) -> None:
        """Create a source of noise.

        Args:
            seed: selects the noise of the cells.
            cell: size of a cell in pixels of the encoded image, at the distance of the world's center; rounded to a
                power of two of a meter, so that views from similar distances share their cells.

        Raises ValueError unless the size is positive.
        """
        if not cell > 0:
            raise ValueError(f"cell is a size in pixels, above 0, got {cell}")
        self.seed, self.cell = seed, cell

    def __call__(
        self,
        clean: Float[Tensor, "b c h w"],
        timestep: Int64[Tensor, " b"],
        geometry: GeometryBuffers,
        generator: torch.Generator,
    ) -> Float[Tensor, "b c h w"]:
        """Draw the noise of one step, see `NoiseSource`.

        Raises ValueError if the geometry buffers have no intrinsics.
        """
        free = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean.device)
        rows = zip(free, *self._surface(geometry, clean.shape[-2], clean.shape[-1]), strict=True)
        return torch.stack([self._anchored(*row) for row in rows])

    def _surface(
        self, geometry: GeometryBuffers, height: int, width: int
    ) -> tuple[Float[Tensor, "b h w 3"], Bool[Tensor, "b h w"], Float[Tensor, " b"]]:
        """World position of the surface at each pixel of the encoded image, whether there is one, and the size of a
        pixel in meters at the distance of the world's center."""
        if geometry.intrinsics is None:
            raise ValueError("noise on the surface needs the intrinsics of the cameras in the geometry buffers")
        rows, columns = geometry.depth.shape[-2:]
        scale = geometry.intrinsics.new_tensor([width / columns, height / rows, 1.0])
        intrinsics = geometry.intrinsics * scale[:, None]
        depth, opacity = (F.interpolate(each.float(), (height, width)) for each in (geometry.depth, geometry.opacity))
        y, x = torch.meshgrid(*(torch.arange(n, device=depth.device) + 0.5 for n in (height, width)), indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], -1).to(depth)
        rays = pixels @ torch.linalg.inv(intrinsics)[:, None].mT
        pose = geometry.camera_to_world.to(depth)
        points = (rays * depth[:, 0, ..., None]) @ pose[:, None, :3, :3].mT + pose[:, None, None, :3, 3]
        return points, (opacity > SOLID)[:, 0] & (depth > 0)[:, 0], pose[:, :3, 3].norm(dim=1) / intrinsics[:, 1, 1]

    def _anchored(
        self,
        free: Float[Tensor, "c h w"],
        points: Float[Tensor, "h w 3"],
        solid: Bool[Tensor, "h w"],
        pixel: Float[Tensor, ""],
    ) -> Float[Tensor, "c h w"]:
        """The noise of one image: that of the cells where a surface is seen, else `free`."""
        where = solid.flatten().nonzero()[:, 0]
        if not len(where):
            return free
        length = 2.0 ** round(math.log2(max(self.cell * float(pixel), 1e-6)))
        cells = (points.reshape(-1, 3)[where] / length).floor().long()
        _, group = torch.unique(cells, dim=0, return_inverse=True)
        first = torch.full((int(group.max()) + 1,), len(where), device=group.device)
        first.scatter_reduce_(0, group, torch.arange(len(where), device=group.device), "amin")
        noise = free.flatten(1).clone()
        noise[:, where[first]] = self._noise_of(cells[first], len(free)).to(noise)
        return noise.view_as(free)

    def _noise_of(self, cells: Int64[Tensor, "n 3"], channels: int) -> Float[Tensor, "c n"]:
        """Standard normal numbers by a hash of cell, channel and seed (Box-Muller)."""
        channel = torch.arange(channels, device=cells.device)[:, None]
        key = (cells[:, 0] * _PRIMES[0]) ^ (cells[:, 1] * _PRIMES[1]) ^ (cells[:, 2] * _PRIMES[2])
        key = key[None] ^ (channel * _PRIMES[3])
        first, second = (_uniform(key, 2 * self.seed + part) for part in (0, 1))
        return ((-2 * first.log()).sqrt() * (2 * math.pi * second).cos()).float()


def _uniform(key: Int64[Tensor, "c n"], seed: int) -> Float[Tensor, "c n"]:
    """Numbers in (0, 1) by a 32-bit integer hash (the finalizer of MurmurHash3), float64."""
    value = (key ^ (seed * 0x9E3779B9)) & _MASK
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value = ((value ^ (value >> shift)) * factor) & _MASK
    value = value ^ (value >> 16)
    return (value.double() + 0.5) / 2**32
