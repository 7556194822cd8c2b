"""Triangle meshes with a material per face, for meshes with several textures or base colors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ..triangle_mesh import TriangleMesh

REPEAT, CLAMP, MIRROR = "repeat", "clamp", "mirror"
"""Wrap modes of a texture."""


@dataclass(frozen=True)
class Texture:
    """A texture image and its sampler; v points down, (0, 0) is the outer corner of the first texel."""

    texels: UInt8[Tensor, "h w 3"]
    """Texels, display sRGB."""
    wrap: tuple[str, str] = (REPEAT, REPEAT)
    """Wrap modes along u and v."""
    smooth: bool = True
    """Whether to interpolate bilinearly instead of using the nearest texel."""


@dataclass(frozen=True)
class SurfaceMaps:
    """A material besides its color; its textures have the coordinates of the color texture and hold linear values."""

    metallic: float = 0.0
    """Metalness in [0, 1], times the blue channel of `metallic_roughness`."""
    roughness: float | None = None
    """Roughness in [0, 1], times the green channel of `metallic_roughness`; None: not specified."""
    metallic_roughness: Texture | None = None
    occlusion: Texture | None = None
    """Ambient occlusion in the red channel."""
    occlusion_strength: float = 1.0
    """Effect of `occlusion` in [0, 1]."""
    emissive: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Emitted color, linear RGB, times `emissive_texture`."""
    emissive_texture: Texture | None = None
    """Emitted color, display sRGB."""
    normal: Texture | None = None
    """Normals in tangent space, +Y up."""
    normal_scale: float = 1.0
    """Factor of the x and y components of `normal`."""


@dataclass(frozen=True)
class Paint:
    """A material's color: `factor` times `texture` times the tint of the vertices."""

    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Color factor in the mesh's color space, see `PaintedMesh.linear`."""
    texture: Texture | None = None
    """Base color texture; None: white."""
    maps: SurfaceMaps | None = None
    """The material besides its color, if it was read."""


@dataclass(frozen=True)
class PartOrigin:
    """The location of a part of a mesh in its file."""

    names: tuple[str, ...] = ()
    """Names of its node, its mesh and its material, as far as they have one."""
    material: int | None = None
    """Index of its material in a glTF file, or in the order of the faces of an OBJ file; None: the default material, or
    another format."""
    has_coordinates: bool = False
    """Whether its vertices have texture coordinates."""


@dataclass(frozen=True, kw_only=True)
class PaintedMesh(TriangleMesh):
    """A mesh with a material (`Paint`) per face; it replaces `colors`, `uvs` and `texture` of the base class."""

    paints: tuple[Paint, ...]
    """The materials."""
    paint_of_face: Int64[Tensor, " f"]
    """Index of the material of each face."""
    tints: Float[Tensor, "v 3"]
    """Vertex color factors in the mesh's color space; 1 has no effect."""
    coordinates: Float[Tensor, "v 2"]
    """Texture coordinates of the vertices, v pointing down."""
    linear: bool
    """Whether factors and tints are linear RGB (glTF) and are multiplied as such; else they are display sRGB."""
    origins: tuple[PartOrigin, ...] = ()
    """The location of the faces of each entry of `paints` in the file."""

    def colors_at(self, faces: Int64[Tensor, " n"], weights: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Display sRGB in [0, 1] at points on faces.

        Args:
            faces: Face index of each point.
            weights: Barycentric coordinates of each point.
        """
        out = torch.empty(len(faces), 3, dtype=torch.float32)
        order = self.paint_of_face[faces].argsort(stable=True)
        present, counts = self.paint_of_face[faces].unique(return_counts=True)
        for paint, chosen in zip(present.tolist(), order.split(counts.tolist()), strict=True):
            corners, barycentrics = self.faces[faces[chosen]], weights[chosen].double()[:, :, None]
            color = (self.tints[corners] * barycentrics).sum(1) * torch.tensor(
                self.paints[paint].factor, dtype=torch.float64
            )
            if (texture := self.paints[paint].texture) is not None:
                color = color * _looked_up(texture, (self.coordinates[corners] * barycentrics).sum(1), self.linear)
            out[chosen] = (to_display(color) if self.linear else color).clamp(0, 1).float()
        return out

    def map_values(
        self, faces: Int64[Tensor, " n"], weights: Float[Tensor, "n 3"], name: str
    ) -> Float[Tensor, "n 3"] | None:
        """Raw texture values in [0, 1] at points on faces; None if no material has this texture.

        Args:
            faces: Face index of each point.
            weights: Barycentric coordinates of each point.
            name: A texture of `SurfaceMaps`; points on a material without it get 1.
        """
        textures = [None if paint.maps is None else getattr(paint.maps, name) for paint in self.paints]
        if not any(textures):
            return None
        out = torch.ones(len(faces), 3)
        kind = self.paint_of_face[faces]
        for paint, texture in enumerate(textures):
            if texture is not None and len(chosen := torch.nonzero(kind == paint)[:, 0]):
                corners, barycentrics = self.faces[faces[chosen]], weights[chosen].double()[:, :, None]
                out[chosen] = _looked_up(texture, (self.coordinates[corners] * barycentrics).sum(1), False).float()
        return out

    def vertex_colors(self) -> Float[Tensor, "v 3"]:
        """Display sRGB at the vertices; a vertex of several faces has the color of one of them."""
        out = torch.full((len(self.vertices), 3), 0.0)
        for corner in range(3):
            weights = torch.zeros(len(self.faces), 3)
            weights[:, corner] = 1
            out[self.faces[:, corner]] = self.colors_at(torch.arange(len(self.faces)), weights)
        return out


def _looked_up(texture: Texture, places: Float[Tensor, "n 2"], linear: bool) -> Float[Tensor, "n 3"]:
    """Sample a texture; interpolated in linear RGB or in display sRGB."""
    height, width = texture.texels.shape[:2]
    values = torch.arange(256, dtype=torch.float64) / 255
    table = to_linear(values) if linear else values
    # Texel centers are at half-integers; -0.5 moves them to integers.
    u, v = (_folded(places[:, axis], texture.wrap[axis]) * size - 0.5 for axis, size in ((0, width), (1, height)))
    if not texture.smooth:
        u, v = u.round(), v.round()
    left, top = u.floor(), v.floor()
    total = torch.zeros(len(places), 3, dtype=torch.float64)
    for row, row_weight in ((top, 1 - (v - top)), (top + 1, v - top)):
        for column, column_weight in ((left, 1 - (u - left)), (left + 1, u - left)):
            i, j = _index(row, height, texture.wrap[1]), _index(column, width, texture.wrap[0])
            total += (row_weight * column_weight)[:, None] * table[texture.texels[i, j].long()]
    return total


def _folded(places: Float[Tensor, " n"], wrap: str) -> Float[Tensor, " n"]:
    """Wrap texture coordinates into [0, 1]."""
    if wrap == REPEAT:
        return places - places.floor()
    if wrap == MIRROR:
        return 1 - (places - 2 * (places / 2).floor() - 1).abs()
    return places.clamp(0, 1)


def _index(texel: Float[Tensor, " n"], size: int, wrap: str) -> Int64[Tensor, " n"]:
    """Wrap the index of a texel that may be one beyond the border."""
    return texel.long() % size if wrap == REPEAT else texel.long().clamp(0, size - 1)


def to_linear(srgb: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Display sRGB to linear RGB (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_display(linear: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Linear RGB, clipped to [0, 1], to display sRGB: the inverse of `to_linear`."""
    linear = linear.clamp(0, 1)
    # The power has no finite gradient at 0, which would be NaN even where it is not used.
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.003) ** (1 / 2.4) - 0.055)
