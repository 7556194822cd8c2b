"""Penalties on the shape of a closed triangle mesh.

In a closed mesh every edge is met twice, once in each direction, by the triangles on its two sides; so sums over the
sides of all triangles are sums over edges, and no table of edges is needed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def laplacian(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], unit: float) -> Float[Tensor, ""]:
    """Mean squared distance of a vertex from the mean of its neighbours (uniform Laplacian), in units of `unit` metres.

    0 without faces.
    """
    if len(faces) == 0:
        return vertices[:0].sum()
    begin, end = _sides(faces)
    total = torch.zeros_like(vertices).index_add(0, begin, vertices.index_select(0, end))
    count = torch.bincount(begin, minlength=len(vertices)).clamp(min=1)[:, None]
    return ((total / count - vertices) / unit).square().sum(1).mean()


def edge_normal_consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the vertex normals at the two ends of an edge, in [0, 2] (threestudio's
    `normal_consistency`); 0 without faces."""
    if len(faces) == 0:
        return normals[:0].sum()
    begin, end = _sides(faces)
    return (1 - (normals.index_select(0, begin) * normals.index_select(0, end)).sum(1)).mean()


def _sides(faces: Int64[Tensor, "f 3"]) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"]]:
    return faces.T.reshape(-1), faces.roll(-1, 1).T.reshape(-1)
