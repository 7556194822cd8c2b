"""Primitive shapes as `Part`s: closed unless noted otherwise, with outward winding, in object units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from .parts import Color, Part, Real, cross, merge, unit

Points: TypeAlias = Sequence[Sequence[Real] | Float64[np.ndarray, " _"]] | Float64[np.ndarray, "_ _"]
Triple: TypeAlias = tuple[Real, Real, Real]
_CREASE = math.cos(math.radians(38))
"""Cosine of the crease angle: edges between faces with a larger angle stay sharp."""


def ellipsoid(
    radii: Triple,
    color: Color,
    center: Triple = (0, 0, 0),
    *,
    rings: int = 12,
    sides: int = 20,
) -> Part:
    """Ellipsoid with the given radii along x, y and z."""
    directions, faces = _sphere(rings, sides)
    scale = np.array(radii, dtype=float)
    return Part(directions * scale + np.array(center), faces, unit(directions / scale), _flat(color, len(directions)))


def sphere(
    radius: Real,
    color: Color,
    center: Triple = (0, 0, 0),
    *,
    rings: int = 12,
    sides: int = 20,
) -> Part:
    """Sphere with the given radius."""
    return ellipsoid((radius, radius, radius), color, center, rings=rings, sides=sides)


def box(
    size: Triple,
    color: Color,
    center: Triple = (0, 0, 0),
    *,
    bevel: Real = 0.12,
    taper: tuple[Real, Real] = (1, 1),
) -> Part:
    """Box with beveled edges that are shaded round.

    Args:
        size: Lengths along x, y and z.
        color: Color of all vertices.
        center: Center of the box.
        bevel: Width of the bevel as a fraction of the shortest side.
        taper: Scale of the top along x and z.
    """
    signs, faces = _beveled_cube()
    half = np.array(size) / 2
    inset = bevel * half.min() * (1 - np.abs(np.eye(3)))[np.repeat(np.arange(3), 8)]
    vertices = signs * (half - inset)
    fraction = (vertices[:, 1:2] / half[1] + 1) / 2
    vertices[:, ::2] *= 1 + fraction * (np.array(taper) - 1)
    # The four vertices of each large face use the face's normal, so that the bevels between them look round.
    corners = vertices.reshape(6, 4, 3)
    normals = unit(cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    faces = faces if bevel > 0 else faces[:12]  # without a bevel only the six large faces have an area
    return Part(vertices + np.array(center), faces, np.repeat(normals, 4, axis=0), _flat(color, 24))


def lathe(profile: Points, color: Color, *, sides: int = 24) -> Part:
    """Surface of revolution about y.

    Args:
        profile: (radius, height) points along the outside, bottom to top. The part is closed if both ends have radius
            0.
        color: Color of all vertices.
        sides: Number of segments around the axis.
    """
    points = np.array(profile, dtype=float)
    runs = _smooth_runs(points)
    rings = np.concatenate([points[run] for run in runs])
    slopes = np.concatenate([_difference(points[run], 0, False) for run in runs])
    lengths = np.hypot(slopes[:, 0], slopes[:, 1])
    angles = _turn(sides)
    around = np.stack([np.sin(angles), np.ones(sides), np.cos(angles)], -1)
    vertices = (around * rings[:, None, (0, 1, 0)]).reshape(-1, 3)
    normals = (around * (slopes * (-1, 1) / lengths[:, None])[:, None, (1, 0, 1)]).reshape(-1, 3)

    joined = np.ones(len(rings) - 1, dtype=bool)
    joined[np.cumsum([run.stop - run.start for run in runs])[:-1] - 1] = False
    open_ring = rings[:, 0] > 1e-9
    drawn = np.stack([joined & open_ring[:-1], joined & open_ring[1:]], -1)  # at a pole only half of each quad remains
    faces = _grid_faces(len(rings), sides, False, True).reshape(-1, sides, 2, 3)
    faces = faces[np.broadcast_to(drawn[:, None], (len(drawn), sides, 2))]
    return Part(vertices, faces, normals, _flat(color, len(vertices)))


def cylinder(radius: Real, height: Real, color: Color, *, top: Real | None = None, sides: int = 20) -> Part:
    """Cylinder standing on y = 0; `top` is the radius at the upper end, if different."""
    upper = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (upper, height), (0, height)], color, sides=sides)


def cone(radius: Real, height: Real, color: Color, *, sides: int = 20) -> Part:
    """Cone standing on y = 0."""
    return lathe([(0, 0), (radius, 0), (0, height)], color, sides=sides)


def torus(ring: Real, thickness: Real, color: Color, *, segments: int = 24, sides: int = 10) -> Part:
    """Torus about the y axis with the radius `ring`; `thickness` is the radius of the tube."""
    around, across = np.meshgrid(_turn(segments), _turn(sides), indexing="ij")
    distance = ring + thickness * np.cos(across)
    grid = np.stack([distance * np.cos(around), thickness * np.sin(across), -distance * np.sin(around)], -1)
    return surface(grid[:, ::-1], color, wrap_rows=True)


def tube(path: Points, radius: Real | Sequence[Real], color: Color, *, sides: int = 10) -> Part:
    """Round tube with rounded ends along a polyline; `radius` is one value, or one per point."""
    centers = np.array(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(centers),))
    tangents = unit(np.gradient(centers, axis=0))
    # Each end is a coarse hemisphere: two smaller rings and a pole.
    lift, shrink = np.array([1.0, 0.8, 0.45]), np.array([0.0, 0.6, 0.893])
    head = centers[:1] - tangents[:1] * radii[0] * lift[:, None]
    tail = centers[-1:] + tangents[-1:] * radii[-1] * lift[::-1, None]
    centers = np.concatenate([head, centers, tail])
    radii = np.concatenate([radii[0] * shrink, radii, radii[-1] * shrink[::-1]])
    tangents = np.concatenate([np.repeat(tangents[:1], 3, 0), tangents, np.repeat(tangents[-1:], 3, 0)])

    normals = np.empty_like(tangents)
    normal = np.eye(3)[np.argmin(np.abs(tangents[0]))]
    for index, tangent in enumerate(tangents):  # project the previous normal, to avoid twist along the path
        normal = normal - tangent * (normal @ tangent)
        normal /= math.sqrt(normal @ normal)
        normals[index] = normal
    binormals = cross(tangents, normals)
    angles = _turn(sides)[:, None]
    circles = normals[:, None] * np.cos(angles) + binormals[:, None] * np.sin(angles)
    return surface(centers[:, None] + radii[:, None, None] * circles, color)


def arc(
    radius: tuple[Real, Real], start: Real, stop: Real, center: tuple[Real, Real] = (0, 0), *, count: int = 10
) -> Float64[np.ndarray, "n 3"]:
    """Return points of an elliptic arc in the xy plane, as a path for `tube` or a part of an outline.

    Angles are in degrees from +x toward +y.
    """
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([center[0] + radius[0] * np.cos(angles), center[1] + radius[1] * np.sin(angles), 0 * angles], -1)


def extrude(outline: Points, depth: Real, color: Color, *, bevel: Real = 0.0) -> Part:
    """Extrude a simple polygon of the xy plane by `depth` along z, centered on z = 0; `bevel` is a length."""
    points = np.array(outline, dtype=float)
    if _signed_area(points) < 0:
        points = points[::-1]
    edges = np.roll(points, -1, 0) - points
    edge_normals = unit(np.stack([edges[:, 1], -edges[:, 0], 0 * edges[:, 0]], -1))
    before = np.roll(edge_normals, 1, 0)
    bisector = edge_normals + before
    smooth = np.einsum("ij,ij->i", edge_normals, before) > _CREASE
    starts = np.where(smooth[:, None], unit(bisector), edge_normals)
    ends = np.where(np.roll(smooth, -1)[:, None], unit(np.roll(bisector, -1, 0)), edge_normals)
    miter = bisector[:, :2] / np.maximum(np.einsum("ij,ij->i", bisector, edge_normals), 0.5)[:, None]
    inner, half = points - bevel * miter, depth / 2

    def ring(outline: Float64[np.ndarray, "n 2"], z: float) -> Float64[np.ndarray, "n 2 3"]:
        corners = np.concatenate([outline, np.full((len(outline), 1), z)], 1)
        return np.stack([corners, np.roll(corners, -1, 0)], 1)

    sides = np.stack([starts, ends], 1)
    forward = np.broadcast_to(np.array([0.0, 0.0, 1.0]), sides.shape)
    rows = [(ring(points, bevel - half), sides), (ring(points, half - bevel), sides)]
    if bevel > 0:
        rows = [(ring(inner, -half), -forward), *rows, (ring(inner, half), forward)]
    walls = []
    for (low, low_normals), (high, high_normals) in pairwise(rows):
        vertices = np.concatenate([low, high], 1).reshape(-1, 3)
        quads = np.arange(len(points))[:, None, None] * 4 + np.array([[0, 1, 3], [0, 3, 2]])
        normals = np.concatenate([low_normals, high_normals], 1).reshape(-1, 3)
        walls.append(Part(vertices, quads.reshape(-1, 3), normals, _flat(color, len(vertices))))
    triangles = _triangulate(inner)
    front = Part(ring(inner, half)[:, 0], triangles, forward[:, 0].copy(), _flat(color, len(points)))
    return merge([*walls, front, Part(ring(inner, -half)[:, 0], triangles[:, ::-1], -front.normals, front.colors)])


def loft(sections: Float64[np.ndarray, "r c 3"], color: Color) -> Part:
    """Smooth surface through closed cross-sections, with flat ends.

    The sections run counter-clockwise seen from the last one.
    """
    caps = []
    for section, order in ((sections[0], 1), (sections[-1], -1)):
        center = np.broadcast_to(section.mean(0), section.shape)
        caps.append(surface(np.stack([center, section][::order]), color))
    return merge([surface(sections, color), *caps])


def ovals(centers: Points, radii: Points, *, sides: int = 20) -> Float64[np.ndarray, "r c 3"]:
    """Return horizontal ellipses with radii in x and z about the centers: cross-sections for `loft`, bottom to top."""
    angles = _turn(sides)
    ring = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1)
    scale = np.insert(np.array(radii, dtype=float), 1, 0.0, axis=1)
    return np.array(centers, dtype=float)[:, None] + scale[:, None] * ring


def surface(
    grid: Float64[np.ndarray, "r c 3"], color: Color, *, wrap_rows: bool = False, wrap_columns: bool = True
) -> Part:
    """Smooth surface through a grid of points; the outside is in the direction of columns x rows.

    The surface is open where it does not wrap. A row of coincident points is a pole.
    """
    rows, columns = grid.shape[:2]
    along_rows = _difference(grid, 0, wrap_rows)
    along_columns = _difference(grid, 1, wrap_columns)
    for pole, neighbor in ((0, 1), (-1, -2)):
        if np.ptp(grid[pole], axis=0).max() < 1e-9:
            along_columns[pole] = along_columns[neighbor]
    normals = unit(cross(along_columns, along_rows)).reshape(-1, 3)
    vertices, faces = grid.reshape(-1, 3), _grid_faces(rows, columns, wrap_rows, wrap_columns)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    faces = faces[np.abs(cross(b - a, c - a)).max(1) > 1e-10]
    return Part(vertices, faces, normals, _flat(color, len(vertices)))


def _difference(points: Float64[np.ndarray, "*n"], axis: int, wrap: bool) -> Float64[np.ndarray, "*n"]:
    """Compute central differences, up to scale, along an axis; one-sided at the ends unless it wraps."""
    index = np.arange(points.shape[axis])
    after, before = (index + 1) % len(index), index - 1
    if not wrap:
        after[-1], before[0] = index[-1], 0
    return points.take(after, axis) - points.take(before, axis)


def _flat(color: Color, count: int) -> Float64[np.ndarray, "v 3"]:
    return np.broadcast_to(np.asarray(color, dtype=float), (count, 3)).copy()


def _turn(count: int) -> Float64[np.ndarray, " n"]:
    return np.linspace(0, 2 * math.pi, count, endpoint=False)


def _smooth_runs(points: Float64[np.ndarray, "n 2"]) -> list[slice]:
    """Return the sections of a polyline between its creases."""
    directions = unit(np.concatenate([np.diff(points, axis=0), np.zeros((len(points) - 1, 1))], 1))
    sharp = np.einsum("ij,ij->i", directions[1:], directions[:-1]) < _CREASE
    breaks = [0, *(np.flatnonzero(sharp) + 1).tolist(), len(points) - 1]
    return [slice(start, stop + 1) for start, stop in pairwise(breaks)]


@lru_cache(maxsize=256)
def _grid_faces(rows: int, columns: int, wrap_rows: bool, wrap_columns: bool) -> Int64[np.ndarray, "f 3"]:
    i, j = np.meshgrid(
        np.arange(rows if wrap_rows else rows - 1), np.arange(columns if wrap_columns else columns - 1), indexing="ij"
    )
    below, above = i * columns, (i + 1) % rows * columns
    right = (j + 1) % columns
    a, b, c, d = below + j, below + right, above + right, above + j
    return np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], 2).reshape(-1, 3).astype(np.int64)


@lru_cache(maxsize=64)
def _sphere(rings: int, sides: int) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f 3"]]:
    polar, around = np.meshgrid(np.linspace(math.pi, 0, rings + 1), _turn(sides), indexing="ij")
    grid = np.stack([np.sin(polar) * np.sin(around), np.cos(polar), np.sin(polar) * np.cos(around)], -1)
    grid[0], grid[-1] = (0, -1, 0), (0, 1, 0)
    part = surface(grid, np.zeros(3))
    return part.vertices, part.faces


@lru_cache(maxsize=1)
def _beveled_cube() -> tuple[Float64[np.ndarray, "24 3"], Int64[np.ndarray, "f 3"]]:
    """Return the signs of the corners, four per face (+x, -x, +y, -y, +z, -z), and all 44 triangles."""
    signs = np.empty((6, 4, 3))
    for face in range(6):
        axis, sign = face // 2, 1 - 2 * (face % 2)
        for corner, (u, v) in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
            signs[face, corner, axis] = sign
            signs[face, corner, (axis + 1) % 3] = u * sign
            signs[face, corner, (axis + 2) % 3] = v
    flat = signs.reshape(24, 3)
    index = {(vertex // 8, *flat[vertex]): vertex for vertex in range(24)}
    triangles = [[4 * face + k for k in order] for face in range(6) for order in ((0, 1, 2), (0, 2, 3))]
    for axis in range(3):  # twelve edges, four along each axis
        for u in (-1.0, 1.0):
            for v in (-1.0, 1.0):
                first, second = np.zeros(3), np.zeros(3)
                first[axis], second[axis] = -1, 1
                for end in (first, second):
                    end[(axis + 1) % 3], end[(axis + 2) % 3] = u, v
                a, b = index[(axis + 1) % 3, *first], index[(axis + 1) % 3, *second]
                c, d = index[(axis + 2) % 3, *second], index[(axis + 2) % 3, *first]
                triangles += [[a, b, c], [a, c, d]] if u * v < 0 else [[a, c, b], [a, d, c]]
    for corner in np.array([(x, y, z) for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]):
        a, b, c = (index[axis, *corner] for axis in range(3))
        triangles.append([a, b, c] if corner.prod() > 0 else [a, c, b])
    return flat, np.array(triangles, dtype=np.int64)


def _signed_area(points: Float64[np.ndarray, "n 2"]) -> float:
    following = np.roll(points, -1, 0)
    return float((points[:, 0] * following[:, 1] - following[:, 0] * points[:, 1]).sum() / 2)


def _triangulate(points: Float64[np.ndarray, "n 2"]) -> Int64[np.ndarray, "f 3"]:
    """Triangulate a simple counter-clockwise polygon by ear clipping."""
    remaining, triangles = list(range(len(points))), []
    xy = [(float(x), float(y)) for x, y in points]

    def turn(a: int, b: int, c: int) -> float:
        return (xy[b][0] - xy[a][0]) * (xy[c][1] - xy[a][1]) - (xy[b][1] - xy[a][1]) * (xy[c][0] - xy[a][0])

    while len(remaining) > 3:
        for position in range(len(remaining)):
            a, b, c = remaining[position - 1], remaining[position], remaining[(position + 1) % len(remaining)]
            if turn(a, b, c) <= 0:
                continue
            others = (p for p in remaining if p not in (a, b, c))
            if not any(min(turn(a, b, p), turn(b, c, p), turn(c, a, p)) >= 0 for p in others):
                break
        else:
            raise ValueError("extrude needs a simple polygon that encloses an area, without crossing edges")
        triangles.append((a, b, c))
        remaining.remove(b)
    return np.array([*triangles, tuple(remaining)], dtype=np.int64)
