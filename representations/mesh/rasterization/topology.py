"""The edges of a mesh with their opposite vertices, for silhouette tests."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int64
from numba import njit
from torch import Tensor

from ...jit import EXACT


def outline_edges(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, "e 4"]:
    """The edges of the welded faces: both end vertices, and the opposite vertex in each of the two faces.

    The last is -1 for an edge with one face. If more than two faces meet at an edge, they are paired in order.
    """
    edges = _edges(faces, len(vertices))
    welded = _weld(vertices, faces, edges)
    return edges if welded is faces else _edges(welded, len(vertices))


def weld(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, "f 3"]:
    """Faces in which coincident vertices on open edges are replaced by the first of them."""
    return _weld(vertices, faces, _edges(faces, len(vertices)))


def _weld(
    vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], edges: Int64[Tensor, "e 4"]
) -> Int64[Tensor, "f 3"]:
    loose = edges[edges[:, 3] < 0, :2].unique()
    if len(loose) == 0:
        return faces
    places, group = torch.unique(vertices.detach()[loose], dim=0, return_inverse=True)
    if len(places) == len(loose):
        return faces
    first = torch.full((len(places),), len(vertices), device=faces.device)
    first = first.scatter_reduce(0, group, loose, "amin")
    index = torch.arange(len(vertices), device=faces.device)
    index[loose] = first[group]
    return index[faces]


def _edges(faces: Int64[Tensor, "f 3"], count: int) -> Int64[Tensor, "e 4"]:
    if faces.device.type == "cpu":
        return torch.from_numpy(_edges_kernel(faces.contiguous().numpy(), count))
    return edges_torch(faces, count)


def edges_torch(faces: Int64[Tensor, "f 3"], count: int) -> Int64[Tensor, "e 4"]:
    """The edge table by sorting, on any device; the order of rows differs from that of the compiled kernel."""
    start, end = faces.flatten(), faces.roll(-1, 1).flatten()
    opposite = faces.roll(1, 1).flatten()
    key, order = torch.sort(torch.minimum(start, end) * count + torch.maximum(start, end), stable=True)
    place = torch.arange(len(key), device=key.device)
    new = torch.ones_like(key, dtype=torch.bool)
    new[1:] = key[1:] != key[:-1]
    rank = place - torch.where(new, place, 0).cummax(0).values
    leads = rank % 2 == 0
    paired = torch.zeros_like(leads)
    paired[:-1] = leads[:-1] & ~new[1:]
    other = torch.where(paired, opposite[order].roll(-1), -1)
    key, first, other = key[leads], opposite[order][leads], other[leads]
    return torch.stack([key // max(count, 1), key % max(count, 1), first, other], 1)


@njit(**EXACT)
@no_type_check
def _edges_kernel(faces: np.ndarray, count: int) -> np.ndarray:
    """The edge table: half-edges are put in buckets by their lower vertex, and paired by linear search in a bucket."""
    begin = np.zeros(count + 2, np.int64)
    for face in range(faces.shape[0]):
        for j in range(3):
            begin[min(faces[face, j], faces[face, (j + 1) % 3]) + 2] += 1
    for vertex in range(count):
        begin[vertex + 2] += begin[vertex + 1]
    upper = np.empty(3 * faces.shape[0], np.int64)
    opposite = np.empty(3 * faces.shape[0], np.int64)
    for face in range(faces.shape[0]):
        for j in range(3):
            u, v = faces[face, j], faces[face, (j + 1) % 3]
            place = begin[min(u, v) + 1]
            begin[min(u, v) + 1] += 1
            upper[place] = max(u, v)
            opposite[place] = faces[face, (j + 2) % 3]
    edges = np.empty((3 * faces.shape[0], 4), np.int64)
    found = 0
    for vertex in range(count):
        for place in range(begin[vertex], begin[vertex + 1]):
            if upper[place] < 0:
                continue
            other = -1
            for partner in range(place + 1, begin[vertex + 1]):
                if upper[partner] == upper[place]:
                    other = opposite[partner]
                    upper[partner] = -1
                    break
            edges[found, 0] = vertex
            edges[found, 1] = upper[place]
            edges[found, 2] = opposite[place]
            edges[found, 3] = other
            found += 1
    return edges[:found].copy()
