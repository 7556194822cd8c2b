"""A compiled bounding-volume hierarchy over triangles, for nearest triangles, exact distances and fast winding
numbers.

It uses float64. Every point is computed independently, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple, no_type_check

import numpy as np
from numba import njit, prange

from ..jit import EXACT

# `no_type_check` on every kernel: numba cannot compile the wrapper of a runtime type checker (the tests' import hook).

LEAF = 8
"""Maximum number of triangles of a leaf."""
DIPOLE_DISTANCE = 2.0
"""Distance, in radii of a node, beyond which it is approximated by a dipole (Barill et al. 2018 recommend 2)."""
_DEPTH = 64
_CHUNK = 256


class TriangleTree(NamedTuple):
    """A bounding-volume hierarchy; parents are before their children."""

    triangles: np.ndarray
    """Triangles [f 3 3] in the order of the leaves."""
    low: np.ndarray
    """Lower corners [k 3] of the bounding boxes."""
    high: np.ndarray
    """Upper corners [k 3] of the bounding boxes."""
    span: np.ndarray
    """First and one past the last triangle [k 2] of each node."""
    child: np.ndarray
    """Index [k] of the left child, the right child is the next; 0: a leaf."""
    dipole: np.ndarray
    """Area-weighted center, sum of normals times area, and radius around the center [k 7] of each node."""
    order: np.ndarray
    """Index [f] of each triangle in the mesh."""


@njit(**EXACT)
@no_type_check
def build_tree(triangles: np.ndarray) -> TriangleTree:
    """Build the hierarchy by median splits along the longest axis of the centers.

    Args:
        triangles: [f 3 3] float64, at least one.
    """
    count = len(triangles)
    center = (triangles[:, 0] + triangles[:, 1] + triangles[:, 2]) / 3
    order = np.arange(count)
    room = 2 * count + 1
    span = np.zeros((room, 2), np.int64)
    child = np.zeros(room, np.int64)
    span[0, 1] = count
    nodes, node = 1, 0
    while node < nodes:
        first, last = span[node]
        if last - first > LEAF:
            ids = order[first:last]
            axis, longest = 0, -1.0
            for k in range(3):
                values = center[ids, k]
                if values.max() - values.min() > longest:
                    axis, longest = k, values.max() - values.min()
            order[first:last] = ids[np.argsort(center[ids, axis], kind="mergesort")]
            middle = (first + last) // 2
            child[node] = nodes
            span[nodes, 0], span[nodes, 1] = first, middle
            span[nodes + 1, 0], span[nodes + 1, 1] = middle, last
            nodes += 2
        node += 1
    triangles = triangles[order]
    low, high, dipole = np.empty((nodes, 3)), np.empty((nodes, 3)), np.zeros((nodes, 7))
    for node in range(nodes):
        _summarize(triangles[span[node, 0] : span[node, 1]], low[node], high[node], dipole[node])
    return TriangleTree(triangles, low, high, span[:nodes].copy(), child[:nodes].copy(), dipole, order)


@njit(**EXACT)
@no_type_check
def _summarize(triangles: np.ndarray, low: np.ndarray, high: np.ndarray, dipole: np.ndarray) -> None:
    """Box of a node, and the expansion of its winding number at the center (Barill et al. 2018, section 3)."""
    low[:], high[:] = np.inf, -np.inf
    weight = 0.0
    for t in range(len(triangles)):
        normal = 0.5 * _cross(triangles[t, 1] - triangles[t, 0], triangles[t, 2] - triangles[t, 0])
        # Degenerate triangles must not make the center undefined.
        area = math.sqrt(_dot(normal, normal)) + 1e-30
        weight += area
        for k in range(3):
            dipole[k] += area * (triangles[t, 0, k] + triangles[t, 1, k] + triangles[t, 2, k]) / 3
            dipole[3 + k] += normal[k]
            low[k] = min(low[k], triangles[t, 0, k], triangles[t, 1, k], triangles[t, 2, k])
            high[k] = max(high[k], triangles[t, 0, k], triangles[t, 1, k], triangles[t, 2, k])
    squared = 0.0
    for k in range(3):
        dipole[k] /= weight
        squared += max(high[k] - dipole[k], dipole[k] - low[k]) ** 2
    dipole[6] = math.sqrt(squared)


@njit(parallel=True, **EXACT)
@no_type_check
def signed_distances(tree: TriangleTree, points: np.ndarray, out: np.ndarray) -> None:
    """Fill `out` [n] with the distances of `points` [n 3] to the nearest triangle, negative where the winding number
    exceeds 1/2."""
    count = len(points)
    anywhere = np.zeros(3)
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        stack = np.empty(_DEPTH, np.int64)
        nearest = 0
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            point = points[i]
            # Neighbors in memory are usually neighbors in space, which gives a good first bound.
            best = _squared_distance(point, tree.triangles[nearest])
            best, nearest = _nearest(tree, point, anywhere, best, nearest, stack)
            out[i] = math.sqrt(best)
            if _winding_number(tree, point, stack) > 0.5:
                out[i] = -out[i]


@njit(parallel=True, **EXACT)
@no_type_check
def nearest_triangles(
    tree: TriangleTree, points: np.ndarray, normals: np.ndarray, reach: float, out: np.ndarray
) -> None:
    """Fill `out` [n] with the index in the mesh of the triangle nearest to each of the `points` [n 3].

    Triangles that face away from the point's normal are skipped, unless all within twice the smallest distance plus
    `reach` do; a normal of 0 skips none.
    """
    count = len(points)
    anywhere = np.zeros(3)
    for chunk in prange((count + _CHUNK - 1) // _CHUNK):
        stack = np.empty(_DEPTH, np.int64)
        nearest = 0
        for i in range(chunk * _CHUNK, min(count, (chunk + 1) * _CHUNK)):
            bound = _squared_distance(points[i], tree.triangles[nearest])
            bound, nearest = _nearest(tree, points[i], anywhere, bound, nearest, stack)
            chosen = nearest
            if not _faces(tree.triangles[nearest], normals[i]):
                # Without a limit, the inside of an open sheet would search the whole mesh.
                limit = (2 * math.sqrt(bound) + reach) ** 2
                _, chosen = _nearest(tree, points[i], normals[i], limit, nearest, stack)
            out[i] = tree.order[chosen]


@njit(**EXACT)
@no_type_check
def _faces(triangle: np.ndarray, direction: np.ndarray) -> bool:
    """Whether the triangle's normal is not opposite to the direction; always for a direction of 0."""
    return _dot(_cross(triangle[1] - triangle[0], triangle[2] - triangle[0]), direction) >= 0


@njit(**EXACT)
@no_type_check
def _nearest(
    tree: TriangleTree, point: np.ndarray, direction: np.ndarray, best: float, nearest: int, stack: np.ndarray
) -> tuple[float, int]:
    """Squared distance to, and index of, the nearest triangle that faces the direction, given those of any such
    triangle as a bound."""
    stack[0], size = 0, 1
    while size:
        size -= 1
        node = stack[size]
        if _box_distance(tree, point, node) >= best:
            continue
        left = tree.child[node]
        if left:
            near = left if _box_distance(tree, point, left) < _box_distance(tree, point, left + 1) else left + 1
            stack[size], stack[size + 1] = 2 * left + 1 - near, near
            size += 2
            continue
        for t in range(tree.span[node, 0], tree.span[node, 1]):
            squared = _squared_distance(point, tree.triangles[t])
            if squared < best and _faces(tree.triangles[t], direction):
                best, nearest = squared, t
    return best, nearest


@njit(**EXACT)
@no_type_check
def _winding_number(tree: TriangleTree, point: np.ndarray, stack: np.ndarray) -> float:
    """Winding number of the surface at a point: 1 inside, 0 outside, fractional near holes."""
    total = 0.0
    stack[0], size = 0, 1
    while size:
        size -= 1
        node = stack[size]
        about = tree.dipole[node]
        x, y, z = about[0] - point[0], about[1] - point[1], about[2] - point[2]
        squared = x * x + y * y + z * z
        if squared > (DIPOLE_DISTANCE * about[6]) ** 2:
            total += (x * about[3] + y * about[4] + z * about[5]) / (squared * math.sqrt(squared))
        elif tree.child[node]:
            stack[size], stack[size + 1] = tree.child[node], tree.child[node] + 1
            size += 2
        else:
            for t in range(tree.span[node, 0], tree.span[node, 1]):
                total += _solid_angle(point, tree.triangles[t])
    return total / (4 * math.pi)


@njit(inline="always", **EXACT)
@no_type_check
def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(**EXACT)
@no_type_check
def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


@njit(inline="always", **EXACT)
@no_type_check
def _box_distance(tree: TriangleTree, point: np.ndarray, node: int) -> float:
    """Squared distance of a point to the box of a node; 0 inside."""
    squared = 0.0
    for k in range(3):
        squared += max(tree.low[node, k] - point[k], 0.0, point[k] - tree.high[node, k]) ** 2
    return squared


@njit(**EXACT)
@no_type_check
def _solid_angle(point: np.ndarray, triangle: np.ndarray) -> float:
    """Solid angle of a triangle at a point, positive from behind (van Oosterom & Strackee 1983)."""
    ax, ay, az = triangle[0, 0] - point[0], triangle[0, 1] - point[1], triangle[0, 2] - point[2]
    bx, by, bz = triangle[1, 0] - point[0], triangle[1, 1] - point[1], triangle[1, 2] - point[2]
    cx, cy, cz = triangle[2, 0] - point[0], triangle[2, 1] - point[1], triangle[2, 2] - point[2]
    a = math.sqrt(ax * ax + ay * ay + az * az)
    b = math.sqrt(bx * bx + by * by + bz * bz)
    c = math.sqrt(cx * cx + cy * cy + cz * cz)
    volume = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    ab, bc, ca = ax * bx + ay * by + az * bz, bx * cx + by * cy + bz * cz, cx * ax + cy * ay + cz * az
    return 2 * math.atan2(volume, a * b * c + ab * c + bc * a + ca * b)


@njit(**EXACT)
@no_type_check
def _squared_distance(point: np.ndarray, triangle: np.ndarray) -> float:
    """Squared distance of a point to a triangle, also a degenerate one: to its plane if the foot point is inside, else
    to an edge."""
    ux, uy, uz = triangle[1, 0] - triangle[0, 0], triangle[1, 1] - triangle[0, 1], triangle[1, 2] - triangle[0, 2]
    vx, vy, vz = triangle[2, 0] - triangle[0, 0], triangle[2, 1] - triangle[0, 1], triangle[2, 2] - triangle[0, 2]
    px, py, pz = point[0] - triangle[0, 0], point[1] - triangle[0, 1], point[2] - triangle[0, 2]
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    pu, pv = px * ux + py * uy + pz * uz, px * vx + py * vy + pz * vz
    area = uu * vv - uv * uv
    s, t = vv * pu - uv * pv, uu * pv - uv * pu
    if area > 0 and s >= 0 and t >= 0 and s + t <= area:
        s, t = s / area, t / area
        dx, dy, dz = px - s * ux - t * vx, py - s * uy - t * vy, pz - s * uz - t * vz
        return dx * dx + dy * dy + dz * dz
    first = _to_segment(px, py, pz, ux, uy, uz)
    second = _to_segment(px, py, pz, vx, vy, vz)
    third = _to_segment(px - ux, py - uy, pz - uz, vx - ux, vy - uy, vz - uz)
    return min(first, second, third)


@njit(inline="always", **EXACT)
@no_type_check
def _to_segment(px: float, py: float, pz: float, x: float, y: float, z: float) -> float:
    """Squared distance of p to the segment from the origin to (x, y, z)."""
    squared = x * x + y * y + z * z
    fraction = min(max((px * x + py * y + pz * z) / squared, 0.0), 1.0) if squared > 0 else 0.0
    return (px - fraction * x) ** 2 + (py - fraction * y) ** 2 + (pz - fraction * z) ** 2
