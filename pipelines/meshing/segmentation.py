"""Partition of a surface into the faces of charts, with short borders that follow creases."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import no_type_check

import numpy as np
import xatlas
from jaxtyping import Float, Int
from numba import njit
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from steindreamer.representations.jit import EXACT

_COSTS = (2.0, 8.0, 32.0)
"""Chart costs of xatlas that are tried in turn while there are too many charts; a larger cost stretches the texture
more."""
_SLIVER_FACES = 10
_SLIVER_AREA = 0.01
"""Number of faces and fraction of the surface's area below both of which a chart becomes part of a neighbor."""
_SPECK_AREA = 5e-4
"""Fraction of the surface's area below which a chart of any number of faces does."""
_CREASE = 0.1
"""Cost of a border along a sharp crease, relative to one across a flat surface."""
_SWEEPS = 20
"""Maximum number of passes over the faces that straighten the borders."""
_FACING = 0.3
"""Least cosine of the angle between a face and the mean normal of a chart that it may move to."""
_REST = 0.002
"""Seconds for the threads of xatlas to fall asleep."""


class Surface:
    """A triangle mesh with the edges between its faces.

    Args:
        vertices: positions.
        faces: vertices of each face.
    """

    def __init__(self, vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> None:
        self.vertices, self.faces = vertices.astype(np.float64), faces.astype(np.int64)
        first, second, third = self.vertices[self.faces].swapaxes(0, 1)
        doubled = np.cross(second - first, third - first)
        length = np.linalg.norm(doubled, axis=1)
        self.areas = 0.5 * length
        self.normals = doubled / np.maximum(length, 1e-30)[:, None]
        ends = np.concatenate([self.faces[:, [0, 1]], self.faces[:, [1, 2]], self.faces[:, [2, 0]]])
        face = np.tile(np.arange(len(self.faces)), 3)
        low, high = np.sort(ends, 1).T
        order = np.lexsort((face, high, low))
        same = (low[order][1:] == low[order][:-1]) & (high[order][1:] == high[order][:-1])
        one, other = order[:-1][same], order[1:][same]
        self.pairs = np.stack([face[one], face[other]], 1)
        """The two faces of every inner edge, `[e, 2]`."""
        self.ends = ends[one]
        """The vertices of these edges, `[e, 2]`."""
        self.lengths = np.linalg.norm(self.vertices[self.ends[:, 0]] - self.vertices[self.ends[:, 1]], axis=1)
        cosine = (self.normals[self.pairs[:, 0]] * self.normals[self.pairs[:, 1]]).sum(1)
        self.costs = self.lengths * np.maximum(np.maximum(cosine, 0) ** 4, _CREASE)
        """Cost of a border along these edges: their length, or less at a crease."""
        self.centers = self.vertices[self.faces].mean(1)
        """Centroids of the faces."""

    def connected(self, label: Int[np.ndarray, " f"]) -> Int[np.ndarray, " f"]:
        """Number the parts of equal label that edges connect, from 0."""
        return _parts(self.pairs, label)

    def connected_within(self, rows: Int[np.ndarray, " n"]) -> Callable[[np.ndarray], Int[np.ndarray, " n"]]:
        """Like `connected`, for labels of the faces `rows` alone."""
        place = np.full(len(self.faces), -1)
        place[rows] = np.arange(len(rows))
        pairs = place[self.pairs]
        pairs = pairs[(pairs >= 0).all(1)]
        return lambda label: _parts(pairs, label)

    def split(self, label: Int[np.ndarray, " f"]) -> tuple[Int[np.ndarray, "f 3"], Int[np.ndarray, " n"]]:
        """Corners of the faces with vertices split along the borders of charts, and the vertex each one was."""
        joined = label[self.pairs[:, 0]] == label[self.pairs[:, 1]]
        one, other, ends = self.pairs[joined, 0], self.pairs[joined, 1], self.ends[joined]
        links = [
            np.stack([3 * face + (self.faces[face] == vertex[:, None]).argmax(1) for face in (one, other)])
            for vertex in ends.T
        ]
        start, end = np.concatenate(links, 1)
        graph = coo_matrix((np.ones(len(start), bool), (start, end)), (self.faces.size,) * 2)
        count, corner = connected_components(graph, directed=False)
        origin = np.empty(count, np.int64)
        origin[corner] = self.faces.ravel()
        return corner.reshape(-1, 3).astype(np.int64), origin


def partition(surface: Surface) -> Int[np.ndarray, " f"]:
    """The chart of every face, from 0.

    xatlas finds a first partition. Faces then move to neighboring charts where that shortens the borders, which follow
    creases because a border costs less there. Slivers become part of the neighbor with the longest common border.
    """
    return straightened(surface, _without_slivers(surface, surface.connected(_xatlas_charts(surface))))


def straightened(surface: Surface, label: Int[np.ndarray, " f"]) -> Int[np.ndarray, " f"]:
    """Charts with shorter borders and without slivers, from 0; faces move to neighboring charts."""
    label = label.copy()
    average = np.stack([np.bincount(label, surface.areas * axis) for axis in surface.normals.T], 1)
    average /= np.maximum(np.linalg.norm(average, axis=1, keepdims=True), 1e-30)
    _move_faces(label, surface.pairs, _edges_of_faces(surface), surface.costs, surface.normals, average)
    return surface.connected(_without_slivers(surface, surface.connected(label)))


def _parts(pairs: np.ndarray, label: np.ndarray) -> Int[np.ndarray, " f"]:
    joined = pairs[label[pairs[:, 0]] == label[pairs[:, 1]]]
    graph = coo_matrix((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), (len(label),) * 2)
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _xatlas_charts(surface: Surface) -> Int[np.ndarray, " f"]:
    """The charts of xatlas, with higher costs if there are too many."""
    limit = max(150, len(surface.faces) // 40)
    atlas = _generated(surface, _COSTS[0])
    for cost in _COSTS[1:]:
        if atlas.chart_count > limit:
            atlas = _generated(surface, cost)
    chart, corners = atlas.get_mesh_vertex_assignment(0)[1], atlas.get_mesh(0)[1]
    return chart[corners[:, 0]].astype(np.int64)


def _generated(surface: Surface, cost: float) -> xatlas.Atlas:
    atlas = xatlas.Atlas()
    atlas.add_mesh(surface.vertices.astype(np.float32), surface.faces.astype(np.uint32))
    options, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    options.max_cost, packing.rotate_charts = cost, False
    atlas.generate(options, packing)
    # An atlas stops its threads when it is deleted. xatlas then wakes them without holding their lock: a thread that is
    # just falling asleep misses the signal, and the program would wait for it forever.
    time.sleep(_REST)
    return atlas


def _without_slivers(surface: Surface, label: Int[np.ndarray, " f"]) -> Int[np.ndarray, " f"]:
    """Merge slivers into neighbors, the smallest first."""
    label, total = label.copy(), surface.areas.sum()
    stuck: set[int] = set()
    while True:
        faces, area = np.bincount(label), np.bincount(label, surface.areas)
        sliver = (faces > 0) & (area < _SPECK_AREA * total)
        sliver |= (faces > 0) & (faces < _SLIVER_FACES) & (area < _SLIVER_AREA * total)
        candidates = [int(index) for index in np.flatnonzero(sliver) if index not in stuck]
        if not candidates:
            return label
        smallest = min(candidates, key=lambda index: area[index])
        one, other = label[surface.pairs].T
        border = (one != other) & ((one == smallest) | (other == smallest))
        if not border.any():
            stuck.add(smallest)
            continue
        neighbor = np.where(one == smallest, other, one)[border]
        label[label == smallest] = np.bincount(neighbor, surface.costs[border]).argmax()


def _edges_of_faces(surface: Surface) -> Int[np.ndarray, "f 3"]:
    """Inner edges of every face; -1 for none."""
    face = surface.pairs.ravel()
    order = np.argsort(face, kind="stable")
    face = face[order]
    number = np.arange(len(face)) - np.searchsorted(face, face)
    manifold = number < 3
    edges = np.full((len(surface.faces), 3), -1, np.int64)
    edges[face[manifold], number[manifold]] = order[manifold] // 2
    return edges


@njit(**EXACT)
@no_type_check
def _move_faces(label, pairs, edges, costs, normals, average):
    """Move faces to the chart of a neighbor while that lowers the cost of the borders."""
    for _ in range(_SWEEPS):
        moved = False
        for face in range(edges.shape[0]):
            around = np.full(3, -1, np.int64)
            kept = 0.0  # cost of the borders that a move would add
            for k in range(3):
                edge = edges[face, k]
                if edge >= 0:
                    around[k] = label[pairs[edge, 0] if pairs[edge, 1] == face else pairs[edge, 1]]
                    if around[k] == label[face]:
                        kept += costs[edge]
            best, target = 1e-3 * kept, -1
            for k in range(3):
                if around[k] < 0 or around[k] == label[face]:
                    continue
                gain, cosine = -kept, 0.0
                for m in range(3):
                    if around[m] == around[k]:
                        gain += costs[edges[face, m]]
                    cosine += normals[face, m] * average[around[k], m]
                if gain > best and cosine > _FACING:
                    best, target = gain, around[k]
            if target >= 0:
                label[face] = target
                moved = True
        if not moved:
            break
