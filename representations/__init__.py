"""3D representations: everything that answers `render(cameras, background) -> rgb, opacity, depth, normal`."""

from .base import Adaptive, AdaptReport, FieldSample, Meshable, Queryable, RenderOutput, Representation, Savable
from .cameras import Cameras, sphere_of_cameras
from .densify import DensifyConfig
from .dmtet_mesh import DmtetConfig, DmtetMesh
from .ensemble import Ensemble, ensemble_of, particles_of
from .gaussian_ply import read_gaussian_ply, write_gaussian_ply
from .gaussians import Gaussians, GaussiansConfig
from .mesh import TriangleMesh, face_normals, vertex_normals
from .mesh_render import render_mesh
from .nerf import Nerf, NerfConfig
from .placement import Placement
from .textured_mesh import TextureConfig, TexturedMesh

REPRESENTATIONS: dict[str, type] = {"gaussians": GaussiansConfig, "mesh": DmtetConfig, "nerf": NerfConfig}
"""What can be trained, by name. Each value is a dataclass (usable as an OmegaConf structured config) with a method
`build(generator, device) -> Representation`.

To add a representation: write one file with such a config and a `Representation` that renders, and one entry here; a
plugin calls `register_representation`. The contract tests (tests/representations/test_contracts.py) run over this
dictionary, so that registering is being tested.
"""


def register_representation(name: str, config: type) -> None:
    """Make `config`, a dataclass like the values of `REPRESENTATIONS`, available under `name`.

    Raises ValueError if the name is taken.
    """
    if name in REPRESENTATIONS:
        raise ValueError(f"a representation named {name!r} exists already: choose another name")
    REPRESENTATIONS[name] = config


__all__ = [
    "REPRESENTATIONS",
    "AdaptReport",
    "Adaptive",
    "Cameras",
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
    "Savable",
    "TextureConfig",
    "TexturedMesh",
    "TriangleMesh",
    "ensemble_of",
    "face_normals",
    "particles_of",
    "read_gaussian_ply",
    "register_representation",
    "render_mesh",
    "sphere_of_cameras",
    "vertex_normals",
    "write_gaussian_ply",
]
