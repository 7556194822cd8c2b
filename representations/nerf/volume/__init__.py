"""Volume rendering: occupancy grid, ray marching, compositing of packed samples, and regularizers along rays."""

from .compositing import accumulate, per_opacity, ray_weights, reached
from .marching import march
from .occupancy import OccupancyConfig, OccupancyGrid
from .ray_terms import distortion, orientation, variance
from .samples import Samples

__all__ = [
    "OccupancyConfig",
    "OccupancyGrid",
    "Samples",
    "accumulate",
    "distortion",
    "march",
    "orientation",
    "per_opacity",
    "ray_weights",
    "reached",
    "variance",
]
