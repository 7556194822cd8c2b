"""Settings of the conversion of a scene to a textured mesh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from steindreamer.representations import Meshable, Queryable, Representation

from ..errors import SettingsError
from .unwrap import MAX_FACES


@dataclass
class MeshingConfig:
    """Extraction, simplification, unwrapping and baking of a surface."""

    source: Literal["auto", "renders", "field", "mesh"] = "auto"
    """Source of the surface: `auto`, `renders`, `field` or `mesh`. This and `color_source` apply to the representation
    of the first stage; the mesh of a converted scene is used unchanged if there is one."""
    color_source: Literal["renders", "field"] = "renders"
    """Source of the base color: `renders` or `field`."""
    resolution: Annotated[int, Interval(ge=16, le=1024)] = 144
    """Number of voxels along the object's longest side."""
    cameras: Annotated[int, Interval(ge=8, le=1024)] = 64
    """Number of views, distributed over the whole sphere."""
    view_size: Annotated[int, Interval(ge=32, le=2048)] = 256
    """Size of a view in pixels (square)."""
    smoothing: Annotated[int, Interval(ge=0, le=1000)] = 8
    """Number of Taubin smoothing steps; 0: none."""
    smallest_part: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """Fraction of the surface's area, in [0, 1), below which disconnected parts are dropped."""
    face_budget: Annotated[int, Interval(ge=12, le=MAX_FACES)] = 20_000
    """Maximum number of triangles."""
    tolerance: Annotated[float, Interval(ge=0, le=0.1)] = 0.0005
    """Deviation, as a fraction of the bounding box's diagonal, up to which the surface is simplified below
    `face_budget`; 99 % of the surface stays within it. 0: the whole budget is used."""
    texture_size: Annotated[int, Interval(ge=16, le=8192)] = 1024
    """Size of each texture in pixels (square); a power of two."""
    padding: Annotated[int, Interval(ge=0, le=64)] = 4
    """Texels between charts, which keep mipmaps from bleeding."""

    def __post_init__(self) -> None:
        if self.texture_size & (self.texture_size - 1):
            raise ValueError(f"texture_size is {self.texture_size}; powers of two are accepted, such as 1024")

    def check(self, representation: Representation) -> None:
        """Raises SettingsError if this representation cannot be exported with these settings."""
        for key in ("source", "color_source"):
            if getattr(self, key) == "field" and not isinstance(representation, Queryable):
                raise SettingsError(
                    f"export.{key}=field needs a representation with field(points), "
                    f"{type(representation).__name__} has none; use renders"
                )
        if self.source == "mesh" and not isinstance(representation, Meshable):
            raise SettingsError(
                f"export.source=mesh needs a mesh, and {type(representation).__name__} is not one; use auto"
            )
