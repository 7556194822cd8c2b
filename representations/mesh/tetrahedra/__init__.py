"""Deep marching tetrahedra (DMTet) [Shen et al. 2021]: a differentiable closed surface of any topology."""

from .connectivity import SurfaceBand, crossing_edges
from .grid import TetrahedralGrid
from .marching_tetrahedra import marching_tetrahedra, zero_crossings

__all__ = ["SurfaceBand", "TetrahedralGrid", "crossing_edges", "marching_tetrahedra", "zero_crossings"]
