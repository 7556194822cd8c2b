"""What can be asked of an exported asset."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...representations import Meshable, Queryable, Representation
from ..errors import UserError, nearest
from .unwrap import MAX_FACES

SOURCES = ("auto", "renders", "field", "mesh")
COLOUR_SOURCES = ("renders", "field")
LIMITS = {
    "resolution": (16, 1024),
    "cameras": (8, 1024),
    "view_size": (32, 2048),
    "smoothing": (0, 1000),
    "face_budget": (12, MAX_FACES),
    "texture_size": (16, 8192),
    "padding": (0, 64),
}
"""Smallest and largest accepted; beyond the largest, memory or patience ends."""


@dataclass
class ExportConfig:
    """What the exported asset shall be."""

    enabled: bool = True
    """False: a run ends with its scene, without an asset. What surrounds the cameras is no object to cut out."""
    source: str = "auto"
    """Where the surface comes from: `auto`, `renders`, `field` or `mesh`. This and the next are about the coarse scene;
    a mesh that a later stage has trained is taken as it is."""
    colour_source: str = "renders"
    """Where the base colour comes from: `renders` or `field`."""
    resolution: int = 144
    """Voxels along the object's longest side."""
    cameras: int = 64
    """Views over the whole sphere."""
    view_size: int = 256
    """Pixels per side of a view."""
    smoothing: int = 8
    """Taubin smoothing steps."""
    smallest_part: float = 0.01
    """Loose parts below this share of the surface's area are dropped."""
    face_budget: int = 20_000
    """Triangles at most."""
    texture_size: int = 1024
    """Pixels per side of each texture; a power of two."""
    padding: int = 4
    """Texels between charts, so that mipmaps do not bleed."""
    roughness: float = 0.8
    """Of the material, [0, 1]."""
    height_metres: float | None = None
    """Height of the asset, which then stands on the ground; None keeps the scene's own size and, where it began from a
    file, its size, place and direction there."""

    def validate(self) -> None:
        """Raises UserError for a value out of range."""
        for key, choices in (("source", SOURCES), ("colour_source", COLOUR_SOURCES)):
            value = getattr(self, key)
            if value not in choices:
                raise UserError(f"export.{key} is '{value}'{nearest(value, choices)}; known: {', '.join(choices)}")
        for key, (least, most) in LIMITS.items():
            if not least <= getattr(self, key) <= most:
                raise UserError(f"export.{key} is {getattr(self, key)}; {least} to {most} is accepted")
        if self.texture_size & (self.texture_size - 1):
            raise UserError(f"export.texture_size is {self.texture_size}; powers of two are accepted, such as 1024")
        if not 0 <= self.roughness <= 1 or not 0 <= self.smallest_part < 1:
            raise UserError("export.roughness must lie in [0, 1] and export.smallest_part in [0, 1)")
        if self.height_metres is not None and not 0 < self.height_metres < math.inf:
            raise UserError(f"export.height_metres is {self.height_metres}; a positive length is accepted")

    def check(self, representation: Representation) -> None:
        """Raises UserError if this representation cannot be exported so."""
        for key in ("source", "colour_source"):
            if getattr(self, key) == "field" and not isinstance(representation, Queryable):
                raise UserError(
                    f"export.{key}=field needs a representation with field(points), "
                    f"{type(representation).__name__} has none; use renders"
                )
        if self.source == "mesh" and not isinstance(representation, Meshable):
            raise UserError(f"export.source=mesh needs a mesh, {type(representation).__name__} is none; use auto")
