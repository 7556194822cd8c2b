"""Marching tetrahedra: the mesh of a signed distance on a grid [Doi & Koide 1991; Shen et al. 2021, DMTet, eq. 3]."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .connectivity import SurfaceBand
from .grid import TetrahedralGrid

_NEAR_ZERO = 1e-9
"""Minimum difference in meters between the values of two nodes in a division, so that no gradient is infinite."""


def marching_tetrahedra(
    positions: Float[Tensor, "n 3"], sdf: Float[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """Extract the zero level of a signed distance, with linear interpolation along the edges.

    The result is a closed, oriented 2-manifold with outward winding if the nodes of `grid.border` are outside; it has
    no vertices and faces if no node is inside. Vertices are differentiable in `positions` and `sdf`. Several vertices
    may coincide where the value of a node is exactly zero.

    Args:
        positions: Node positions in meters.
        sdf: Signed distances of the nodes, negative inside; zero counts as outside.
        grid: The grid.

    Raises:
        ValueError: `positions` or `sdf` do not fit the grid.
    """
    if len(positions) != grid.nodes or len(sdf) != grid.nodes:
        raise ValueError(f"the grid has {grid.nodes} nodes, but got {len(positions)} positions and {len(sdf)} values")
    ends, faces = SurfaceBand(grid, width=0).topology(sdf.detach() < 0)
    return zero_crossings(positions, sdf, ends), faces


def zero_crossings(
    positions: Float[Tensor, "n 3"], sdf: Float[Tensor, " n"], ends: Int64[Tensor, "e 2"]
) -> Float[Tensor, "e 3"]:
    """The point on each edge where a linear signed distance is zero; differentiable in `positions` and `sdf`.

    Args:
        positions: Positions in meters.
        sdf: Signed distances at the positions.
        ends: Indices of the positions at both ends of each edge, whose signed distances have different signs.
    """
    # index_select, because autograd sums the gradient of sdf[ends] in an order that depends on the threads.
    first, second = sdf.index_select(0, ends.reshape(-1)).reshape(-1, 2).unbind(1)
    difference = second - first
    weight = -first / torch.where(difference.abs() < _NEAR_ZERO, difference.detach().sign() * _NEAR_ZERO, difference)
    a, b = positions.index_select(0, ends.reshape(-1)).reshape(-1, 2, 3).unbind(1)
    return a + weight.clamp(0, 1)[:, None] * (b - a)
