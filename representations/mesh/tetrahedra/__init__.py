"""Deep marching tetrahedra (DMTet) [Shen et al. 2021]: a differentiable closed surface of any topology."""

from .grid import TetrahedralGrid
from .marching_tetrahedra import crossing_edges, marching_tetrahedra

__all__ = ["TetrahedralGrid", "crossing_edges", "marching_tetrahedra"]
