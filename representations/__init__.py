"""3D representations: everything that answers `render(cameras, background) -> rgb, opacity, depth, normal`."""

from .base import Adaptive, AdaptReport, FieldSample, Queryable, RenderOutput, Representation
from .cameras import Cameras, sphere_of_cameras
from .mesh import TriangleMesh

__all__ = [
    "AdaptReport",
    "Adaptive",
    "Cameras",
    "FieldSample",
    "Queryable",
    "RenderOutput",
    "Representation",
    "TriangleMesh",
    "sphere_of_cameras",
]
