"""Settings of the exported asset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..meshing.config import MeshingConfig
from ..meshing.detail_config import DetailConfig
from ..meshing.maps import NormalMapChoice


@dataclass
class ExportConfig(DetailConfig, MeshingConfig):
    """The textured mesh, its levels of detail and its collider, and the files that they are written to."""

    enabled: bool = True
    """Whether a run exports an asset; false: it ends with its scene. A scene that surrounds the cameras cannot be
    exported as an object."""
    normal_map: NormalMapChoice = "auto"
    """Whether the material has a normal map: `always`, `never`, or `auto`: if at least 5 % of its texels differ by 2
    degrees from the mesh's own normals."""
    roughness: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """Roughness of the material, [0, 1]."""
    height_meters: Annotated[float, Interval(gt=0, le=10_000)] | None = None
    """Height of the asset in meters, which then stands on the ground. None: for a
    scene that started from a file, its size, position and orientation there; else the usual height of the object that
    the prompt names; without a known object, the scene's own size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_lods()
