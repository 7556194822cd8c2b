"""The report of a finished asset: every measured value, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..export.detail_report import ColliderReport, LevelReport, plain_values
from ..files import write_atomically
from .colliders import Collider
from .lods import Level

FILE_NAME = "finish.json"


def level_reports(levels: Sequence[Level], diameter: float, own_atlas: Sequence[bool] = ()) -> list[LevelReport]:
    """The measured values of levels of detail.

    Args:
        levels: the levels.
        diameter: diameter of the object in meters.
        own_atlas: see `LevelReport.own_atlas`, of each level; empty: all share one.
    """
    return [
        LevelReport(
            len(level.mesh.faces),
            len(np.unique(level.mesh.faces.numpy())),
            level.color_difference,
            level.silhouette_iou,
            level.screen_coverage,
            level.switch_distance(diameter),
            any(own_atlas[index : index + 1]),
        )
        for index, level in enumerate(levels)
    ]


def collider_report(collider: Collider | None) -> ColliderReport | None:
    """The measured values of a collider."""
    if collider is None:
        return None
    return ColliderReport(
        len(collider.hulls),
        [len(hull.vertices) for hull in collider.hulls],
        collider.volume_error,
        collider.hausdorff,
    )


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
        return {each.name: plain_values(getattr(self, each.name)) for each in fields(self)}

    def write(self, folder: Path) -> Path:
        """Write `finish.json`. Returns its path."""
        path = folder / FILE_NAME
        write_atomically(path, json.dumps(self.to_plain(), indent=2).encode() + b"\n")
        return path
