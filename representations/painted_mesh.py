"""Triangle meshes whose faces have materials: what one texture, or one color per vertex, cannot hold."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .mesh import TriangleMesh

REPEAT, CLAMP, MIRROR = "repeat", "clamp", "mirror"
"""What lies beyond a texture's border."""


@dataclass(frozen=True)
class Texture:
    """A picture, and how it is looked up: v grows downwards, (0, 0) is the outer corner of its first texel."""

    texels: UInt8[Tensor, "h w 3"]
    """Display sRGB."""
    wrap: tuple[str, str] = (REPEAT, REPEAT)
    """Along u and v."""
    smooth: bool = True
    """Bilinear; else the nearest texel."""


@dataclass(frozen=True)
class Paint:
    """A material's color: `factor` times `texture` times the tint of the vertices."""

    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """In the mesh's color space, see `PaintedMesh.linear`."""
    texture: Texture | None = None


@dataclass(frozen=True, kw_only=True)
class PaintedMesh(TriangleMesh):
    """A mesh with a paint for every face. `colours`, `uvs` and `texture` of the base are not what paints it."""

    paints: tuple[Paint, ...]
    paint_of_face: Int64[Tensor, " f"]
    tints: Float[Tensor, "v 3"]
    """In the mesh's color space; 1 changes nothing."""
    coordinates: Float[Tensor, "v 2"]
    """Where the vertices are on the textures."""
    linear: bool
    """Whether factors and tints are linear light (glTF) and everything is multiplied there; else they are display sRGB
    and multiplied as such."""

    def colours_at(self, faces: Int64[Tensor, " n"], weights: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Display sRGB in [0, 1] at points of faces, given by the weights of their corners."""
        out = torch.empty(len(faces), 3, dtype=torch.float32)
        order = self.paint_of_face[faces].argsort(stable=True)
        present, counts = self.paint_of_face[faces].unique(return_counts=True)
        for paint, chosen in zip(present.tolist(), order.split(counts.tolist()), strict=True):
            corners, shares = self.faces[faces[chosen]], weights[chosen].double()[:, :, None]
            color = (self.tints[corners] * shares).sum(1) * torch.tensor(self.paints[paint].factor, dtype=torch.float64)
            if (texture := self.paints[paint].texture) is not None:
                color = color * _looked_up(texture, (self.coordinates[corners] * shares).sum(1), self.linear)
            out[chosen] = (_display(color) if self.linear else color).clamp(0, 1).float()
        return out

    def vertex_colours(self) -> Float[Tensor, "v 3"]:
        """Display sRGB at the vertices; one that several faces share has the color of one of them."""
        out = torch.full((len(self.vertices), 3), 0.0)
        for corner in range(3):
            weights = torch.zeros(len(self.faces), 3)
            weights[:, corner] = 1
            out[self.faces[:, corner]] = self.colours_at(torch.arange(len(self.faces)), weights)
        return out


def _looked_up(texture: Texture, places: Float[Tensor, "n 2"], linear: bool) -> Float[Tensor, "n 3"]:
    """Texels, in linear light or display sRGB, weighted there."""
    height, width = texture.texels.shape[:2]
    values = torch.arange(256, dtype=torch.float64) / 255
    table = _light(values) if linear else values
    # A texel's center is at a half; -0.5 makes it whole.
    u, v = (_folded(places[:, axis], texture.wrap[axis]) * size - 0.5 for axis, size in ((0, width), (1, height)))
    if not texture.smooth:
        u, v = u.round(), v.round()
    left, top = u.floor(), v.floor()
    total = torch.zeros(len(places), 3, dtype=torch.float64)
    for row, row_share in ((top, 1 - (v - top)), (top + 1, v - top)):
        for column, column_share in ((left, 1 - (u - left)), (left + 1, u - left)):
            i, j = _index(row, height, texture.wrap[1]), _index(column, width, texture.wrap[0])
            total += (row_share * column_share)[:, None] * table[texture.texels[i, j].long()]
    return total


def _folded(places: Float[Tensor, " n"], wrap: str) -> Float[Tensor, " n"]:
    """Brought into [0, 1], where the picture lies."""
    if wrap == REPEAT:
        return places - places.floor()
    if wrap == MIRROR:
        return 1 - (places - 2 * (places / 2).floor() - 1).abs()
    return places.clamp(0, 1)


def _index(texel: Float[Tensor, " n"], size: int, wrap: str) -> Int64[Tensor, " n"]:
    """Of a texel that may lie one beyond the border."""
    return texel.long() % size if wrap == REPEAT else texel.long().clamp(0, size - 1)


def _light(srgb: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Display sRGB to linear light (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _display(linear: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The inverse of `_light`; what is outside [0, 1] is clipped."""
    linear = linear.clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
