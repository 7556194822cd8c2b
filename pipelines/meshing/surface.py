"""A closed surface from any representation: from its renders alone, or from its density field.

Both methods fill a grid with an inside value (larger is more solid). The level is then the one whose silhouettes agree
best with the representation's own, and marching cubes extracts the surface at that level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage
from skimage import measure

from steindreamer.representations import Meshable, Queryable, Representation, TriangleMesh

from .field import field_log_density
from .iso_level import best_level
from .tsdf import Grid, Volume, bounding_grid, coarse_grid, fuse
from .views import Views, take_views

_PINHOLE = 2
"""Half the width, in voxels, of openings that are closed because only a cavity is behind them."""


@dataclass(frozen=True)
class SurfaceConfig:
    """Settings of `extract_surface`."""

    source: str = "auto"
    """Source of the surface: `mesh` uses a mesh unchanged, `field` evaluates the density, `renders` fuses depth and
    opacity; `auto` uses the first of these that is available.

    The field is more accurate for Gaussians (benchmarks/extraction.py), because their depth is blurred."""
    resolution: int = 144
    """Number of voxels along the longest side of the object."""
    cameras: int = 64
    """Number of views, distributed over the whole sphere."""
    view_size: int = 256
    """Size of a view in pixels (square)."""
    truncation: float = 3.0
    """Distance in voxels from a depth map's surface within which its distances are used."""
    votes: int = 4
    """Number of views that must see through a point before it counts as empty, so that a stray pixel has no effect."""


def extract_surface(
    representation: Representation, config: SurfaceConfig | None = None, views: Views | None = None
) -> TriangleMesh:
    """The closed surface (no colors) of a representation, with outward winding.

    Space that no view sees, and any cavity that is not connected to the outside, counts as solid. Raises ValueError if
    the scene is empty or the source does not exist.

    Args:
        representation: the scene.
        config: the settings; default `SurfaceConfig()`.
        views: existing images of the scene, which are then not rendered again.

    Example:
        >>> mesh = extract_surface(scene, SurfaceConfig(source="field", resolution=64))
    """
    config = SurfaceConfig() if config is None else config
    source = config.source
    if source == "auto":
        source = next(
            name
            for name, ability in (("mesh", Meshable), ("field", Queryable), ("renders", Representation))
            if isinstance(representation, ability)
        )
    if source == "mesh":
        return _own_mesh(representation)
    views = take_views(representation, config.cameras, config.view_size) if views is None else views
    level = views.solid_level()
    hull = fuse(views, level, coarse_grid(), truncation=2.0, votes=config.votes, use_depth=False)
    grid = bounding_grid(hull, config.resolution)
    if source == "field":
        if not isinstance(representation, Queryable):
            raise ValueError(
                f"source='field' needs a representation with field(points); {type(representation).__name__} has none: "
                "use source='renders' or 'auto'"
            )
        query = partial(field_log_density, representation)
        volume = _sample_field(query, views, level, grid, config)
    elif source == "renders":
        query = None
        volume = fuse(views, level, grid, truncation=config.truncation, votes=config.votes, use_depth=True)
    else:
        raise ValueError(f"unknown source {source!r}; choose auto, renders, field or mesh")
    iso = best_level(volume, grid, views, level)
    return _cut(_fill_hollows(volume, iso), iso, grid, query)


Query = Callable[[np.ndarray], np.ndarray]


def _own_mesh(representation: Representation) -> TriangleMesh:
    if not isinstance(representation, Meshable):
        raise ValueError(f"source='mesh' needs a mesh; {type(representation).__name__} is not one: use source='auto'")
    mesh = representation.mesh()
    if not len(mesh.faces):
        raise ValueError("the scene is empty: its mesh has no faces; train longer, or start from a larger shape")
    return TriangleMesh(mesh.vertices.cpu(), mesh.faces.cpu())


def _sample_field(query: Query, views: Views, level: float, grid: Grid, config: SurfaceConfig) -> Volume:
    """Log density on the grid; points outside the silhouettes are not evaluated."""
    hull = fuse(views, 0.25 * level, grid, truncation=config.truncation, votes=config.votes, use_depth=False)
    possible = np.asarray(ndimage.binary_dilation(hull > -0.99, iterations=2), bool).reshape(-1)
    values = query(grid.points()[possible])
    volume = np.full(possible.shape, values.min(), np.float32)
    volume[possible] = values
    return volume.reshape(grid.shape)


def _fill_hollows(volume: Volume, iso: float) -> Volume:
    """Make empty space solid that is not reached from the grid's corner, including cavities behind pinholes.

    A small ball is moved through the empty space; where it does not fit, only the next few voxels behind are kept
    empty.
    """
    padded = np.pad(volume, _PINHOLE + 1, constant_values=min(float(volume.min()), iso - 1))
    empty = padded <= iso
    roomy = ndimage.binary_erosion(empty, iterations=_PINHOLE, border_value=1)
    labels = np.asarray(measure.label(roomy, connectivity=1))
    reached = ndimage.binary_dilation(labels == labels[0, 0, 0], iterations=2 * _PINHOLE + 2, mask=empty)
    inner = slice(_PINHOLE + 1, -_PINHOLE - 1)
    hollow = (empty & ~np.asarray(reached, bool))[inner, inner, inner]
    return np.where(hollow, volume.max(), volume)


def _cut(volume: Volume, iso: float, grid: Grid, query: Query | None) -> TriangleMesh:
    """Marching cubes at the level; with a query, every vertex is bisected along its grid edge to the exact level."""
    padded = np.pad(volume, 1, constant_values=min(float(volume.min()), iso - 1e-3))
    # A corner exactly at the level would give zero-area triangles.
    step = 1e-5 * max(float(np.ptp(padded)), 1e-6)
    padded = np.where(np.abs(padded - iso) < step, iso + step, padded)
    corners, faces, _, _ = measure.marching_cubes(padded, iso, gradient_direction="ascent")
    corners = corners - 1.0
    if query is not None:
        corners = _bisect(corners, volume, iso, grid, query)
    vertices = torch.from_numpy((grid.origin + grid.voxel * corners).astype(np.float32))
    return TriangleMesh(vertices, torch.from_numpy(faces.astype(np.int64)))


def _bisect(corners: np.ndarray, volume: Volume, iso: float, grid: Grid, query: Query, steps: int = 4) -> np.ndarray:
    top = np.array(grid.shape) - 1
    low, high = np.clip(np.floor(corners), 0, top), np.clip(np.ceil(corners), 0, top)
    low_inside = volume[tuple(low.astype(int).T)] > iso
    inside = np.where(low_inside[:, None], low, high)
    outside = np.where(low_inside[:, None], high, low)
    for _ in range(steps):
        middle = 0.5 * (inside + outside)
        solid = (query(grid.origin + grid.voxel * middle) > iso)[:, None]
        inside, outside = np.where(solid, middle, inside), np.where(solid, outside, middle)
    # Keep away from the grid's corners, where the vertices of neighboring edges would coincide.
    middle = 0.5 * (inside + outside)
    return low + np.clip(middle - low, 0.02, 0.98) * (high > low)
