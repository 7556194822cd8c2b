"""3D representations: everything that answers `render(cameras, background) -> rgb, opacity, depth, normal`."""

from .base import Adaptive, AdaptReport, FieldSample, Queryable, RenderOutput, Representation
from .cameras import Cameras, sphere_of_cameras
from .mesh import TriangleMesh, face_normals, vertex_normals
from .mesh_render import render_mesh

__all__ = [
    "AdaptReport",
    "Adaptive",
    "Cameras",
    "FieldSample",
    "Queryable",
    "RenderOutput",
    "Representation",
    "TriangleMesh",
    "face_normals",
    "render_mesh",
    "sphere_of_cameras",
    "vertex_normals",
]
