"""Trainable 3D representations (Gaussians, NeRF, DMTet, textured mesh) with `render(cameras, background)`."""

from steindreamer.registry import Registry

from .base import (
    Adaptive,
    AdaptReport,
    Buildable,
    ColoredSurface,
    FieldSample,
    Meshable,
    Queryable,
    RenderOutput,
    Representation,
    RepresentationConfig,
    Savable,
    SceneContext,
    TakesOver,
)
from .cameras import Cameras, sphere_of_cameras
from .gaussians.densification import DensifyConfig
from .gaussians.gaussians import Gaussians, GaussiansConfig
from .gaussians.glb import read_gaussian_glb, write_gaussian_glb
from .gaussians.ply import read_gaussian_ply, write_gaussian_ply
from .mesh.closest_points import ClosestPoints, SurfaceIndex
from .mesh.dmtet import DmtetConfig, DmtetMesh
from .mesh.render import render_mesh
from .mesh.retextured import RetextureConfig, RetexturedMesh
from .mesh.sampling import sample_surface
from .mesh.signed_distance import signed_distance
from .mesh.textured import TextureConfig, TexturedMesh
from .nerf.nerf import Nerf, NerfConfig
from .particles import Ensemble, ensemble_of, particles_of
from .placement import Placement
from .triangle_mesh import TriangleMesh, face_normals, vertex_normals

REPRESENTATIONS: Registry[type[RepresentationConfig]] = Registry(
    "representation",
    {
        "gaussians": GaussiansConfig,
        "nerf": NerfConfig,
        "dmtet": DmtetConfig,
        "textured_mesh": TextureConfig,
        "retextured_mesh": RetextureConfig,
    },
)
"""Trainable representations by name: dataclasses that are `Buildable`, to start a run, `TakesOver`, to continue the
scene of an earlier stage, or both.

To add a representation: write one file with such a config and a `Representation` that renders, and register it. The
contract tests (tests/representations/test_contracts.py) cover every registered representation.
"""

register_representation = REPRESENTATIONS.register
list_representations = REPRESENTATIONS.names

__all__ = [
    "REPRESENTATIONS",
    "AdaptReport",
    "Adaptive",
    "Buildable",
    "Cameras",
    "ClosestPoints",
    "ColoredSurface",
    "DensifyConfig",
    "DmtetConfig",
    "DmtetMesh",
    "Ensemble",
    "FieldSample",
    "Gaussians",
    "GaussiansConfig",
    "Meshable",
    "Nerf",
    "NerfConfig",
    "Placement",
    "Queryable",
    "RenderOutput",
    "Representation",
    "RepresentationConfig",
    "RetextureConfig",
    "RetexturedMesh",
    "Savable",
    "SceneContext",
    "SurfaceIndex",
    "TakesOver",
    "TextureConfig",
    "TexturedMesh",
    "TriangleMesh",
    "ensemble_of",
    "face_normals",
    "list_representations",
    "particles_of",
    "read_gaussian_glb",
    "read_gaussian_ply",
    "register_representation",
    "render_mesh",
    "sample_surface",
    "signed_distance",
    "sphere_of_cameras",
    "vertex_normals",
    "write_gaussian_glb",
    "write_gaussian_ply",
]
