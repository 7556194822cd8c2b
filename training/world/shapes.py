"""Primitive shapes as `Part`s, closed unless said otherwise, outward winding, in the object's own units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from jaxtyping import Float64, Int64

from .parts import Colour, Part, Real, cross, merge, unit

Points: TypeAlias = Sequence[Sequence[Real] | Float64[np.ndarray, " _"]] | Float64[np.ndarray, "_ _"]
Triple: TypeAlias = tuple[Real, Real, Real]
_CREASE = math.cos(math.radians(38))
"""Edges whose faces differ by more than this stay sharp."""


def ellipsoid(
    radii: Triple,
    colour: Colour,
    centre: Triple = (0, 0, 0),
    *,
    rings: int = 12,
    sides: int = 20,
) -> Part:
    directions, faces = _sphere(rings, sides)
    scale = np.array(radii, dtype=float)
    return Part(directions * scale + np.array(centre), faces, unit(directions / scale), _flat(colour, len(directions)))


def sphere(
    radius: Real,
    colour: Colour,
    centre: Triple = (0, 0, 0),
    *,
    rings: int = 12,
    sides: int = 20,
) -> Part:
    return ellipsoid((radius, radius, radius), colour, centre, rings=rings, sides=sides)


def box(
    size: Triple,
    colour: Colour,
    centre: Triple = (0, 0, 0),
    *,
    bevel: Real = 0.12,
    taper: tuple[Real, Real] = (1, 1),
) -> Part:
    """A box with rounded-looking edges: `bevel` is a share of the shortest side, `taper` scales the top in x and z."""
    signs, faces = _bevelled_cube()
    half = np.array(size) / 2
    inset = bevel * half.min() * (1 - np.abs(np.eye(3)))[np.repeat(np.arange(3), 8)]
    vertices = signs * (half - inset)
    share = (vertices[:, 1:2] / half[1] + 1) / 2
    vertices[:, ::2] *= 1 + share * (np.array(taper) - 1)
    # The four vertices of every big face carry its own normal, so that the bevels between them shade round.
    corners = vertices.reshape(6, 4, 3)
    normals = unit(cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    faces = faces if bevel > 0 else faces[:12]  # without a bevel only the six big faces have an area
    return Part(vertices + np.array(centre), faces, np.repeat(normals, 4, axis=0), _flat(colour, 24))


def lathe(profile: Points, colour: Colour, *, sides: int = 24) -> Part:
    """(radius, height) points, bottom to top along the outside, revolved about y; closed if both ends have radius 0."""
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
    drawn = np.stack([joined & open_ring[:-1], joined & open_ring[1:]], -1)  # at a pole half of each square is left
    faces = _grid_faces(len(rings), sides, False, True).reshape(-1, sides, 2, 3)
    faces = faces[np.broadcast_to(drawn[:, None], (len(drawn), sides, 2))]
    return Part(vertices, faces, normals, _flat(colour, len(vertices)))


def cylinder(radius: Real, height: Real, colour: Colour, *, top: Real | None = None, sides: int = 20) -> Part:
    """Stands on y = 0; `top` is the radius at the upper end if it differs."""
    upper = radius if top is None else top
    return lathe([(0, 0), (radius, 0), (upper, height), (0, height)], colour, sides=sides)


def cone(radius: Real, height: Real, colour: Colour, *, sides: int = 20) -> Part:
    """Stands on y = 0."""
    return lathe([(0, 0), (radius, 0), (0, height)], colour, sides=sides)


def torus(ring: Real, thickness: Real, colour: Colour, *, segments: int = 24, sides: int = 10) -> Part:
    """About the y axis; `thickness` is the radius of the tube."""
    around, across = np.meshgrid(_turn(segments), _turn(sides), indexing="ij")
    distance = ring + thickness * np.cos(across)
    grid = np.stack([distance * np.cos(around), thickness * np.sin(across), -distance * np.sin(around)], -1)
    return surface(grid[:, ::-1], colour, wrap_rows=True)


def tube(path: Points, radius: Real | Sequence[Real], colour: Colour, *, sides: int = 10) -> Part:
    """A round tube with rounded ends along a polyline; one radius, or one per point."""
    centres = np.array(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), (len(centres),))
    tangents = unit(np.gradient(centres, axis=0))
    # The ends: two smaller rings and a pole each, a coarse hemisphere.
    lift, shrink = np.array([1.0, 0.8, 0.45]), np.array([0.0, 0.6, 0.893])
    head = centres[:1] - tangents[:1] * radii[0] * lift[:, None]
    tail = centres[-1:] + tangents[-1:] * radii[-1] * lift[::-1, None]
    centres = np.concatenate([head, centres, tail])
    radii = np.concatenate([radii[0] * shrink, radii, radii[-1] * shrink[::-1]])
    tangents = np.concatenate([np.repeat(tangents[:1], 3, 0), tangents, np.repeat(tangents[-1:], 3, 0)])

    normals = np.empty_like(tangents)
    normal = np.eye(3)[np.argmin(np.abs(tangents[0]))]
    for index, tangent in enumerate(tangents):  # the previous normal, made perpendicular: no twist along the path
        normal = normal - tangent * (normal @ tangent)
        normal /= math.sqrt(normal @ normal)
        normals[index] = normal
    binormals = cross(tangents, normals)
    angles = _turn(sides)[:, None]
    circles = normals[:, None] * np.cos(angles) + binormals[:, None] * np.sin(angles)
    return surface(centres[:, None] + radii[:, None, None] * circles, colour)


def arc(
    radius: tuple[Real, Real], start: Real, stop: Real, centre: tuple[Real, Real] = (0, 0), *, count: int = 10
) -> Float64[np.ndarray, "n 3"]:
    """Points of an ellipse in the xy plane; degrees from +x towards +y. A path for `tube`, or an outline's curve."""
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([centre[0] + radius[0] * np.cos(angles), centre[1] + radius[1] * np.sin(angles), 0 * angles], -1)


def extrude(outline: Points, depth: Real, colour: Colour, *, bevel: Real = 0.0) -> Part:
    """A simple polygon in the xy plane, thickened by `depth` along z about z = 0; `bevel` is a length."""
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
        walls.append(Part(vertices, quads.reshape(-1, 3), normals, _flat(colour, len(vertices))))
    triangles = _triangulate(inner)
    front = Part(ring(inner, half)[:, 0], triangles, forward[:, 0].copy(), _flat(colour, len(points)))
    return merge([*walls, front, Part(ring(inner, -half)[:, 0], triangles[:, ::-1], -front.normals, front.colours)])


def loft(sections: Float64[np.ndarray, "r c 3"], colour: Colour) -> Part:
    """A smooth skin over closed cross-sections with flat ends; sections run counter-clockwise seen from the last."""
    caps = []
    for section, order in ((sections[0], 1), (sections[-1], -1)):
        centre = np.broadcast_to(section.mean(0), section.shape)
        caps.append(surface(np.stack([centre, section][::order]), colour))
    return merge([surface(sections, colour), *caps])


def ovals(centres: Points, radii: Points, *, sides: int = 20) -> Float64[np.ndarray, "r c 3"]:
    """Horizontal ellipses about the centres, with radii in x and z: cross-sections for `loft`, bottom to top."""
    angles = _turn(sides)
    ring = np.stack([np.sin(angles), 0 * angles, np.cos(angles)], -1)
    scale = np.insert(np.array(radii, dtype=float), 1, 0.0, axis=1)
    return np.array(centres, dtype=float)[:, None] + scale[:, None] * ring


def surface(
    grid: Float64[np.ndarray, "r c 3"], colour: Colour, *, wrap_rows: bool = False, wrap_columns: bool = True
) -> Part:
    """A smooth skin over a grid of points; outside is where columns x rows points. Open where it does not wrap.

    A row whose points coincide is a pole.
    """
    rows, columns = grid.shape[:2]
    along_rows = _difference(grid, 0, wrap_rows)
    along_columns = _difference(grid, 1, wrap_columns)
    for pole, neighbour in ((0, 1), (-1, -2)):
        if np.ptp(grid[pole], axis=0).max() < 1e-9:
            along_columns[pole] = along_columns[neighbour]
    normals = unit(cross(along_columns, along_rows)).reshape(-1, 3)
    vertices, faces = grid.reshape(-1, 3), _grid_faces(rows, columns, wrap_rows, wrap_columns)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    faces = faces[np.abs(cross(b - a, c - a)).max(1) > 1e-10]
    return Part(vertices, faces, normals, _flat(colour, len(vertices)))


def _difference(points: Float64[np.ndarray, "*n"], axis: int, wrap: bool) -> Float64[np.ndarray, "*n"]:
    """Central differences (of any scale) along an axis, one-sided at the ends unless it wraps."""
    index = np.arange(points.shape[axis])
    after, before = (index + 1) % len(index), index - 1
    if not wrap:
        after[-1], before[0] = index[-1], 0
    return points.take(after, axis) - points.take(before, axis)


def _flat(colour: Colour, count: int) -> Float64[np.ndarray, "v 3"]:
    return np.broadcast_to(np.asarray(colour, dtype=float), (count, 3)).copy()


def _turn(count: int) -> Float64[np.ndarray, " n"]:
    return np.linspace(0, 2 * math.pi, count, endpoint=False)


def _smooth_runs(points: Float64[np.ndarray, "n 2"]) -> list[slice]:
    """The stretches of a polyline between its creases."""
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
def _bevelled_cube() -> tuple[Float64[np.ndarray, "24 3"], Int64[np.ndarray, "f 3"]]:
    """Signs of the corners, four per big face (faces +x, -x, +y, -y, +z, -z), and all 44 triangles."""
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
    """Ear clipping of a simple counter-clockwise polygon."""
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
