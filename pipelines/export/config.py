"""What can be asked of an exported asset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ...representations import Meshable, Queryable, Representation
from ..errors import SettingsError
from ..ranges import check_ranges
from .unwrap import MAX_FACES

SOURCES = ("auto", "renders", "field", "mesh")
COLOUR_SOURCES = ("renders", "field")


@dataclass
class ExportConfig:
    """What the exported asset shall be."""

    enabled: bool = True
    """False: a run ends with its scene, without an asset. What surrounds the cameras is no object to cut out."""
    source: Annotated[str, SOURCES] = "auto"
    """Where the surface comes from: `auto`, `renders`, `field` or `mesh`. This and the next are about the coarse scene;
    a mesh that a later stage has trained is taken as it is."""
    colour_source: Annotated[str, COLOUR_SOURCES] = "renders"
    """Where the base colour comes from: `renders` or `field`."""
    resolution: Annotated[int, Interval(ge=16, le=1024)] = 144
    """Voxels along the object's longest side."""
    cameras: Annotated[int, Interval(ge=8, le=1024)] = 64
    """Views over the whole sphere."""
    view_size: Annotated[int, Interval(ge=32, le=2048)] = 256
    """Pixels per side of a view."""
    smoothing: Annotated[int, Interval(ge=0, le=1000)] = 8
    """Taubin smoothing steps."""
    smallest_part: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """Loose parts below this share of the surface's area are dropped."""
    face_budget: Annotated[int, Interval(ge=12, le=MAX_FACES)] = 20_000
    """Triangles at most."""
    texture_size: Annotated[int, Interval(ge=16, le=8192)] = 1024
    """Pixels per side of each texture; a power of two."""
    padding: Annotated[int, Interval(ge=0, le=64)] = 4
    """Texels between charts, so that mipmaps do not bleed."""
    roughness: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """Of the material, [0, 1]."""
    height_metres: Annotated[float, Interval(gt=0, le=10_000)] | None = None
    """Height of the asset, which then stands on the ground; None keeps the scene's own size and, where it began from a
    file, its size, place and direction there."""

    def validate(self) -> None:
        """Raises SettingsError for a value out of range."""
        check_ranges(self, "export.")
        if self.texture_size & (self.texture_size - 1):
            raise SettingsError(f"export.texture_size is {self.texture_size}; powers of two are accepted, such as 1024")

    def check(self, representation: Representation) -> None:
        """Raises SettingsError if this representation cannot be exported so."""
        for key in ("source", "colour_source"):
            if getattr(self, key) == "field" and not isinstance(representation, Queryable):
                raise SettingsError(
                    f"export.{key}=field needs a representation with field(points), "
                    f"{type(representation).__name__} has none; use renders"
                )
        if self.source == "mesh" and not isinstance(representation, Meshable):
            raise SettingsError(f"export.source=mesh needs a mesh, {type(representation).__name__} is none; use auto")
