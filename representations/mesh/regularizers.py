"""Regularizers on the shape of a closed triangle mesh.

In a closed mesh, every edge is a side of two triangles, once in each direction, so that sums over the sides of all
triangles are sums over edges, and no edge table is needed.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

CREASE = 20.0
"""Angle in degrees between the normals at the ends of an edge at which `robust_normal_consistency` is half of its
maximum."""


def laplacian(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], unit: float) -> Float[Tensor, ""]:
    """Uniform Laplacian: mean squared distance of a vertex from the mean of its neighbors; 0 without faces.

    Args:
        vertices: Positions in meters.
        faces: Vertex indices.
        unit: Unit of length of the result, in meters.
    """
    if len(faces) == 0:
        return vertices[:0].sum()
    begin, end = _sides(faces)
    total = torch.zeros_like(vertices).index_add(0, begin, vertices.index_select(0, end))
    count = torch.bincount(begin, minlength=len(vertices)).clamp(min=1)[:, None]
    return ((total / count - vertices) / unit).square().sum(1).mean()


def edge_normal_consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the vertex normals at the two ends of an edge, in [0, 2]; 0 without faces.

    This is `normal_consistency` of threestudio.
    """
    if len(faces) == 0:
        return normals[:0].sum()
    begin, end = _sides(faces)
    return (1 - (normals.index_select(0, begin) * normals.index_select(0, end)).sum(1)).mean()


def robust_normal_consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean of d / (d + s) over the edges with d = 1 - cosine between the vertex normals at the two ends, in [0, 1].

    For angles well below `CREASE` this is `edge_normal_consistency` divided by s = 1 - cos(`CREASE`). Above, it is
    constant, so that dents are flattened while creases and the rims of thin parts are kept. It is the robust function
    of Geman and McClure [1985]. It is 0 without faces.
    """
    if len(faces) == 0:
        return normals[:0].sum()
    begin, end = _sides(faces)
    difference = 1 - (normals.index_select(0, begin) * normals.index_select(0, end)).sum(1)
    return (difference / (difference + 1 - math.cos(math.radians(CREASE)))).mean()


def _sides(faces: Int64[Tensor, "f 3"]) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"]]:
    return faces.T.reshape(-1), faces.roll(-1, 1).T.reshape(-1)
