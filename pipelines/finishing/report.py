"""The report of a finished asset: every measured value, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ..files import write_atomically

FILE_NAME = "finish.json"


@dataclass(frozen=True)
class LevelReport:
    """The measured values of a level of detail."""

    triangles: int
    vertices: int
    color_difference: float | None
    """Mean CIEDE2000 between images of the source and of the level; None for a mesh without color."""
    silhouette_iou: float
    """Intersection over union of the silhouettes of the source and of the level, [0, 1]."""
    screen_coverage: float
    """Diameter of the object relative to the height of the screen below which the level looks like level 0."""
    switch_distance: float
    """Distance in meters from which the level looks like level 0, on a screen 1080 pixels high with a vertical field of
    view of 60 degrees."""
    own_atlas: bool
    """Whether the level is unwrapped and baked anew, because chart borders of the shared atlas limit its collapse."""


@dataclass(frozen=True)
class ColliderReport:
    """The measured values of a collider."""

    hulls: int
    vertices: list[int]
    """Number of vertices of each hull."""
    method: str
    """`coacd`, or `hull` for one convex hull."""
    volume_error: float | None
    """Volume of the collider over that of the mesh, minus 1; None for an open mesh."""
    hausdorff: float
    """Largest distance between both surfaces, as a fraction of the diagonal."""


@dataclass(frozen=True)
class FinishReport:
    """The steps that were needed for a file, and the difference of the result from it."""

    source: str
    engine: str
    name: str
    files: list[str]
    """Names of the written files, the main file first."""
    source_triangles: int
    source_materials: int
    repair: dict[str, Any]
    """See `repair.Repaired`."""
    deviation: float
    """Distance that 99 % of the mesh keeps from the source, as a fraction of the diagonal."""
    levels: list[LevelReport]
    collider: ColliderReport | None
    texture_size: int
    texels_per_meter: float | None
    """Median texel density; None for kept texture coordinates."""
    normal_detail: float | None
    """95th percentile of the angle between the normal map and the mesh's own normals, in degrees; None if none was
    baked."""
    lightmap_overlap: float | None
    """Fraction of the lightmap's texels that several triangles cover; None without a lightmap."""
    size_meters: tuple[float, ...]
    """Width, height and depth."""
    file_bytes: int
    """Size of the main file."""
    over_budget: list[str]
    """The values that exceed the budgets of the engine, each with a remedy."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by step."""

    def to_plain(self) -> dict[str, Any]:
        """All values as JSON values."""
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}

    def write(self, folder: Path) -> Path:
        """Write `finish.json`. Returns its path."""
        path = folder / FILE_NAME
        write_atomically(path, json.dumps(self.to_plain(), indent=2).encode() + b"\n")
        return path


def _plain(value: Any) -> Any:
    if isinstance(value, LevelReport | ColliderReport):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return round(value, 6) if isinstance(value, float) else value
