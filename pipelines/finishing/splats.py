"""The surface of a file of 3D Gaussians, as the source of a finished asset."""

from __future__ import annotations

from pathlib import Path

import torch

from steindreamer.representations import GaussiansConfig, Placement
from steindreamer.representations.mesh.painted import CLAMP, Paint, PaintedMesh, SurfaceMaps, Texture

from ..meshing.atlas import texture_surface
from ..meshing.bake import to_bytes
from ..meshing.config import MeshingConfig
from ..meshing.stopwatch import Stopwatch
from ..meshing.views import take_views
from .config import FinishConfig

_TEXTURE = 1024
_SPECK = 0.005
"""Fraction of the area below which parts are dropped in any case: scans have stray Gaussians."""
VIEWS, VIEW_SIZE = 64, 512
"""Number and size of the views from which surface and colors are taken: a scan has more detail than a trained scene."""


def read_splats(path: Path, config: FinishConfig) -> tuple[PaintedMesh, Placement]:
    """The closed surface of the Gaussians with their color as a texture, fitted into the unit ball, and its placement.

    Raises ValueError if the file is broken, or if the Gaussians have no surface that can be seen from outside.
    """
    scene = GaussiansConfig(initial_ply=str(path), initial_yaw=config.yaw).build(torch.Generator())
    meshing = MeshingConfig(
        resolution=config.wrap_resolution,
        tolerance=config.tolerance / 2,
        texture_size=config.texture_size or _TEXTURE,
        cameras=VIEWS,
        view_size=VIEW_SIZE,
        smallest_part=max(config.smallest_part, _SPECK),
    )
    views = take_views(scene, meshing.cameras, meshing.view_size)
    mesh = texture_surface(scene, views, meshing, Stopwatch()).mesh
    assert mesh.uvs is not None and mesh.texture is not None and scene.placement is not None
    texels = torch.from_numpy(to_bytes(mesh.texture.permute(1, 2, 0).numpy()))
    painted = PaintedMesh(
        mesh.vertices,
        mesh.faces,
        mesh.normals,
        paints=(Paint(texture=Texture(texels, (CLAMP, CLAMP)), maps=SurfaceMaps()),),
        paint_of_face=torch.zeros(len(mesh.faces), dtype=torch.int64),
        tints=torch.ones(len(mesh.vertices), 3),
        coordinates=mesh.uvs,
        linear=False,
    )
    return painted, scene.placement
