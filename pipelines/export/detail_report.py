"""Measured values of the levels of detail and the collider of an asset."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any

logger = logging.getLogger(__name__)


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

    def log(self, index: int) -> None:
        """Log the line of the level."""
        color = "" if self.color_difference is None else f"color difference {self.color_difference:.2f}, "
        logger.info(
            f"LOD{index}: {self.triangles} triangles, {color}silhouettes {self.silhouette_iou:.1%}, from "
            f"{self.switch_distance:.3g} m"
        )


@dataclass(frozen=True)
class ColliderReport:
    """The measured values of a collider."""

    hulls: int
    vertices: list[int]
    """Number of vertices of each hull."""
    volume_error: float | None
    """Volume of the collider over that of the mesh, minus 1; None for an open mesh."""
    hausdorff: float
    """Largest distance of the mesh from the hulls, and of what they cover outside it from the mesh, as a fraction of
    the diagonal."""

    def log(self) -> None:
        """Log the line of the collider."""
        volume = "unknown" if self.volume_error is None else f"{self.volume_error:+.1%}"
        logger.info(
            f"collider: {self.hulls} hulls of up to {max(self.vertices)} vertices, volume {volume}, largest distance "
            f"{self.hausdorff:.1%}"
        )


def plain_values(value: Any) -> Any:
    """Reports of levels and colliders, lists and dictionaries as JSON values."""
    if isinstance(value, LevelReport | ColliderReport):
        return {each.name: plain_values(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, list | tuple):
        return [plain_values(each) for each in value]
    if isinstance(value, dict):
        return {key: plain_values(each) for key, each in value.items()}
    return round(value, 6) if isinstance(value, float) else value
