"""A closed surface from any representation: from its renders alone, or from its density field.

Both ways fill one grid with an inside value (larger is more solid) and share the rest: the level is the one whose
silhouettes agree best with the representation's own, and marching cubes cuts the grid there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
import torch
from numba import njit, prange
from scipy import ndimage
from skimage import measure

from ...representations import Queryable, Representation, TriangleMesh
from .views import Views, take_views

Volume = np.ndarray

_JUDGING_VIEWS = 16
_JUDGING_SIZE = 128
_MARGIN = 3
"""Empty voxels kept around the object."""
_PINHOLE = 2
"""Half the width, in voxels, of the openings that lead nowhere."""


@dataclass(frozen=True)
class SurfaceConfig:
    source: str = "auto"
    """`renders` fuses depth and opacity, `field` asks the density; `auto` takes the field where there is one.

    On Gaussians the field is the more exact (benchmarks/extraction.py): their depth is blurred.
    """
    resolution: int = 144
    """Voxels along the longest side of the object."""
    cameras: int = 64
    """Views over the whole sphere."""
    view_size: int = 256
    """Pixels per side of a view."""
    truncation: float = 3.0
    """Voxels over which a depth map's distance is believed."""
    votes: int = 4
    """So many views must look through a point before it is empty: one stray pixel carves nothing."""


@dataclass(frozen=True)
class Grid:
    """Cubic voxels; values live on the corners `origin + voxel * (i, j, k)`."""

    origin: np.ndarray
    voxel: float
    shape: tuple[int, int, int]

    def points(self) -> np.ndarray:
        """Corner positions `[x y z, 3]`, float32."""
        axes = [self.origin[a] + self.voxel * np.arange(self.shape[a]) for a in range(3)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


def extract_surface(
    representation: Representation, config: SurfaceConfig | None = None, views: Views | None = None
) -> TriangleMesh:
    """The closed surface (no colours) of a representation, with outward winding.

    Space that no view sees, and any hollow that the outside does not reach, counts as solid.
    `views` spares rendering them again. Raises ValueError if the scene is empty or the source does not exist.
    """
    config = SurfaceConfig() if config is None else config
    views = take_views(representation, config.cameras, config.view_size) if views is None else views
    level = views.solid_level()
    hull = _fuse(views, level, _coarse_grid(), truncation=2.0, votes=config.votes, use_depth=False)
    grid = _bounding_grid(hull, config.resolution)
    source = config.source
    if source == "auto":
        source = "field" if isinstance(representation, Queryable) else "renders"
    if source == "field":
        if not isinstance(representation, Queryable):
            raise ValueError(
                f"source='field' needs a representation with field(points); {type(representation).__name__} has none: "
                "use source='renders' or 'auto'"
            )
        query = _density_query(representation)
        volume = _sample_field(query, views, level, grid, config)
    elif source == "renders":
        query = None
        volume = _fuse(views, level, grid, truncation=config.truncation, votes=config.votes, use_depth=True)
    else:
        raise ValueError(f"unknown source {source!r}; choose auto, renders or field")
    iso = _best_level(volume, grid, views, level)
    return _cut(_fill_hollows(volume, iso), iso, grid, query)


def _coarse_grid() -> Grid:
    return Grid(np.full(3, -1.1), 2.2 / 63, (64, 64, 64))


def _bounding_grid(hull: Volume, resolution: int) -> Grid:
    """The grid around what the silhouettes leave standing on the coarse one."""
    coarse = _coarse_grid()
    corners = np.argwhere(hull > -0.9)
    if len(corners) == 0:
        raise ValueError("the views do not agree on any common solid; are the cameras and the depth consistent?")
    low = coarse.origin + coarse.voxel * (corners.min(0) - 1)
    high = coarse.origin + coarse.voxel * (corners.max(0) + 1)
    voxel = float((high - low).max() / resolution)
    x, y, z = (int(n) for n in np.ceil((high - low) / voxel).astype(int) + 1 + 2 * _MARGIN)
    return Grid(low - _MARGIN * voxel, voxel, (x, y, z))


def _fuse(views: Views, level: float, grid: Grid, *, truncation: float, votes: int, use_depth: bool) -> Volume:
    """Inside values in [-1, 1]: 0 on the surface, -1 a truncation outside, 1 a truncation inside or never seen."""
    cameras = views.cameras
    outline = (views.opacity[:, 0] * (0.5 / level)).clamp(max=1)
    rays = torch.nn.functional.normalize(cameras.rays(), dim=1)
    facing = (views.normal * rays).sum(1).neg()
    facing = torch.where(facing > 1e-3, facing, torch.ones_like(facing)).clamp_min(0.2)
    out = np.empty(grid.shape, np.float32)
    _fuse_kernel(
        grid.origin.astype(np.float32),
        np.float32(grid.voxel),
        cameras.world_to_camera.numpy(),
        cameras.intrinsics.numpy(),
        views.depth[:, 0].contiguous().numpy(),
        facing.contiguous().numpy(),
        outline.contiguous().numpy(),
        np.float32(truncation * grid.voxel),
        min(votes, len(cameras)),
        use_depth,
        out,
    )
    return out


@njit(parallel=True, error_model="numpy", cache=True)
@no_type_check
def _fuse_kernel(origin, voxel, poses, intrinsics, depth, facing, outline, truncation, votes, use_depth, out):
    """Every view says how far outside it finds a corner; the mean of the largest few sayings decides."""
    count, height, width = outline.shape
    for i in prange(out.shape[0]):
        largest = np.empty(votes, np.float32)
        for j in range(out.shape[1]):
            for k in range(out.shape[2]):
                x, y, z = origin[0] + voxel * i, origin[1] + voxel * j, origin[2] + voxel * k
                largest[:] = -1.0
                for v in range(count):
                    pose = poses[v]
                    zc = pose[2, 0] * x + pose[2, 1] * y + pose[2, 2] * z + pose[2, 3]
                    if zc <= 1e-3:
                        continue
                    xc = pose[0, 0] * x + pose[0, 1] * y + pose[0, 2] * z + pose[0, 3]
                    yc = pose[1, 0] * x + pose[1, 1] * y + pose[1, 2] * z + pose[1, 3]
                    u = intrinsics[v, 0, 0] * xc / zc + intrinsics[v, 0, 2] - 0.5
                    w = intrinsics[v, 1, 1] * yc / zc + intrinsics[v, 1, 2] - 0.5
                    u0, w0 = int(np.floor(u)), int(np.floor(w))
                    if u0 < 0 or w0 < 0 or u0 + 1 >= width or w0 + 1 >= height:
                        # The object lives in the unit ball, which every view contains whole.
                        value, covered, a, b = 1.0, 0.0, 0.0, 0.0
                    else:
                        a, b = u - u0, w - w0
                        covered = (1 - b) * ((1 - a) * outline[v, w0, u0] + a * outline[v, w0, u0 + 1])
                        covered += b * ((1 - a) * outline[v, w0 + 1, u0] + a * outline[v, w0 + 1, u0 + 1])
                        value = 1 - 2 * covered
                    if use_depth and covered >= 0.5:
                        near, far, total, weight = 1e30, 0.0, 0.0, 0.0
                        for dw in range(2):
                            for du in range(2):
                                d = depth[v, w0 + dw, u0 + du]
                                if outline[v, w0 + dw, u0 + du] >= 0.5 and d > 0:
                                    share = (b if dw else 1 - b) * (a if du else 1 - a)
                                    near, far = min(near, d), max(far, d)
                                    total += share * d
                                    weight += share
                        # Across a depth edge neither side is right; such a pixel says nothing.
                        if weight > 1e-3 and far - near < 2 * truncation:
                            wn, un = w0 + (1 if b > 0.5 else 0), u0 + (1 if a > 0.5 else 0)
                            distance = (total / weight - zc) * facing[v, wn, un] / truncation
                            value = max(value, min(1.0, distance))
                    if value > largest[votes - 1]:
                        n = votes - 1
                        while n > 0 and largest[n - 1] < value:
                            largest[n] = largest[n - 1]
                            n -= 1
                        largest[n] = value
                        if largest[votes - 1] >= 1.0:
                            break  # empty beyond doubt
                out[i, j, k] = -largest.mean()


Query = Callable[[np.ndarray], np.ndarray]


def _density_query(representation: Queryable) -> Query:
    """Points `[n, 3]` to log density `[n]`: Gaussians fall off exponentially, so the logarithm interpolates well."""

    @torch.no_grad()
    def query(points: np.ndarray) -> np.ndarray:
        parameter = next(representation.parameters(), None) if isinstance(representation, torch.nn.Module) else None
        device = torch.device("cpu") if parameter is None else parameter.device
        chunks = torch.from_numpy(points.astype(np.float32)).split(1 << 18)
        values = torch.cat([representation.field(chunk.to(device)).density.float().cpu() for chunk in chunks])
        return values.clamp_min(1e-8).log().numpy()

    return query


def _sample_field(query: Query, views: Views, level: float, grid: Grid, config: SurfaceConfig) -> Volume:
    """Log density on the grid; what the silhouettes rule out is not asked."""
    hull = _fuse(views, 0.25 * level, grid, truncation=config.truncation, votes=config.votes, use_depth=False)
    possible = np.asarray(ndimage.binary_dilation(hull > -0.99, iterations=2), bool).reshape(-1)
    values = query(grid.points()[possible])
    volume = np.full(possible.shape, values.min(), np.float32)
    volume[possible] = values
    return volume.reshape(grid.shape)


def _best_level(volume: Volume, grid: Grid, views: Views, level: float) -> float:
    """The level whose silhouettes have the largest IoU with the representation's.

    A level set's silhouette is where the largest value along the ray exceeds the level, so that one
    maximum-intensity projection per view judges all levels at once.
    """
    step = max(1, len(views.cameras) // _JUDGING_VIEWS)
    chosen = views[::step]
    size = min(_JUDGING_SIZE, chosen.cameras.height)
    cameras = chosen.cameras.resized(size)
    target = torch.nn.functional.interpolate(chosen.opacity, size=(size, size), mode="area")[:, 0].numpy() > level
    projected = np.full(target.shape, volume.min(), np.float32)
    directions = torch.nn.functional.normalize(cameras.rays(), dim=1)
    _project_kernel(
        volume,
        ((cameras.position.numpy() - grid.origin) / grid.voxel).astype(np.float32),
        directions.contiguous().numpy(),
        projected,
    )
    reached = projected[projected > volume.min()]
    levels = np.unique(np.quantile(reached, np.linspace(0, 1, 257)))
    scores = np.array([_iou(projected > value, target) for value in levels])
    # The optimum is flat; its middle is steadier than its summit.
    return float(np.median(levels[scores >= scores.max() - 0.002]))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@njit(parallel=True, error_model="numpy", cache=True)
@no_type_check
def _project_kernel(volume, eyes, directions, out):
    """Largest value along every ray, sampled trilinearly once per voxel. Eyes are in voxels from the first corner."""
    count, height, width = out.shape
    for row in prange(count * height):
        v, h = row // height, row % height
        for w in range(width):
            near, far = 0.0, 1e30
            for a in range(3):
                direction, eye, top = directions[v, a, h, w], eyes[v, a], volume.shape[a] - 1.001
                if abs(direction) < 1e-9:
                    if eye < 0 or eye > top:
                        far = -1.0
                    continue
                first, second = -eye / direction, (top - eye) / direction
                near, far = max(near, min(first, second)), min(far, max(first, second))
            best = out[v, h, w]
            t = near + 1e-3
            while t < far:
                x = eyes[v, 0] + t * directions[v, 0, h, w]
                y = eyes[v, 1] + t * directions[v, 1, h, w]
                z = eyes[v, 2] + t * directions[v, 2, h, w]
                i, j, k = int(x), int(y), int(z)
                a, b, c = x - i, y - j, z - k
                low = (1 - b) * ((1 - c) * volume[i, j, k] + c * volume[i, j, k + 1])
                low += b * ((1 - c) * volume[i, j + 1, k] + c * volume[i, j + 1, k + 1])
                high = (1 - b) * ((1 - c) * volume[i + 1, j, k] + c * volume[i + 1, j, k + 1])
                high += b * ((1 - c) * volume[i + 1, j + 1, k] + c * volume[i + 1, j + 1, k + 1])
                best = max(best, (1 - a) * low + a * high)
                t += 1.0
            out[v, h, w] = best


def _fill_hollows(volume: Volume, iso: float) -> Volume:
    """Make solid whatever is empty but not reached from the grid's corner, hollows behind pinholes included.

    A small ball rolls through the empty space; where it cannot pass, only the next few voxels behind are kept empty.
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
    # A corner exactly on the level would make zero-area triangles.
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
    # Keep clear of the grid's corners, where neighbouring edges' vertices would coincide.
    middle = 0.5 * (inside + outside)
    return low + np.clip(middle - low, 0.02, 0.98) * (high > low)
