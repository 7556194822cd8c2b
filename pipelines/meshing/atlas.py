"""Conversion of a scene to a textured mesh within the face budget, shared by the export and the texture stage."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from steindreamer.representations import Queryable, Representation, TexturedMesh, TriangleMesh

from .bake import bake_color, gather, to_bytes
from .config import MeshingConfig
from .simplify import DeviationFrom, clean_mesh, is_closed_manifold, welded_faces
from .stopwatch import Stopwatch
from .surface import SurfaceConfig, extract_surface
from .texels import Texels, rasterize_uvs
from .transfer import transfer_texture
from .unwrap import unwrap
from .views import Views


@dataclass(frozen=True)
class TexturedSurface:
    """An unwrapped mesh with its base color."""

    mesh: TriangleMesh
    """The mesh with normals, uvs and texture."""
    detailed: TriangleMesh
    """The surface before its triangles are reduced."""
    texels: Texels
    ambient_occlusion: Float[np.ndarray, " t"]
    """Ambient occlusion per texel, see `bake.Gathered`."""
    watertight: bool
    deviation: float
    """Distance of the mesh from the detailed surface, see `DeviationFrom`."""


def texture_surface(
    representation: Representation, views: Views, config: MeshingConfig, watch: Stopwatch
) -> TexturedSurface:
    """Extract, clean, simplify, unwrap and bake.

    A `TexturedMesh` that has the requested texture size and face budget is returned unchanged. Otherwise its finer mesh
    is simplified and unwrapped again, and its texels are transferred. Raises ValueError if the scene is empty.

    Args:
        representation: the scene.
        views: its images, as `take_views` returns them.
        config: the settings of the mesh.
        watch: measures the time of each step.
    """
    if isinstance(representation, TexturedMesh) and _fits(representation, config):
        mesh, detailed = representation.mesh(), representation.detail()
        watertight = is_closed_manifold(welded_faces(mesh)[0])
    else:
        with watch("surface"):
            detailed = plain_surface(representation, views, config)
        with watch("cleanup"):
            mesh = clean_mesh(
                detailed,
                config.face_budget,
                tolerance=config.tolerance,
                smoothing=0,
                smallest_part=config.smallest_part,
            )
            watertight = is_closed_manifold(mesh.faces.numpy())
        with watch("unwrap"):
            mesh = unwrap(mesh, config.texture_size, config.padding)
    deviation = DeviationFrom(detailed)(mesh)
    with watch("bake"):
        texels = rasterize_uvs(mesh, config.texture_size)
        gathered = gather(mesh, texels, views)
        if mesh.texture is not None:
            texture = _spread(mesh.texture.permute(1, 2, 0).numpy(), texels)
        elif isinstance(representation, TexturedMesh):
            texture = transfer_texture(representation, mesh, texels)
        else:
            field = representation if isinstance(representation, Queryable) else None
            texture = bake_color(mesh, texels, gathered, config.color_source, field)
        mesh = replace(mesh, texture=torch.from_numpy(texture).permute(2, 0, 1).float() / 255)
    return TexturedSurface(mesh, detailed, texels, gathered.ambient_occlusion, watertight, deviation)


def plain_surface(representation: Representation, views: Views, config: MeshingConfig) -> TriangleMesh:
    """The clean closed surface, before its triangles are reduced. Raises ValueError if the scene is empty."""
    if isinstance(representation, TexturedMesh):
        surface, smoothing = _welded(representation.detail()), 0
    else:
        surface = extract_surface(representation, SurfaceConfig(config.source, config.resolution), views)
        smoothing = config.smoothing
    return clean_mesh(surface, None, smoothing=smoothing, smallest_part=config.smallest_part)


def _fits(scene: TexturedMesh, config: MeshingConfig) -> bool:
    size = config.texture_size
    return len(scene.faces) <= config.face_budget and tuple(scene.texture_logits.shape[1:]) == (size, size)


def _welded(mesh: TriangleMesh) -> TriangleMesh:
    """The mesh with one vertex per position: without a finer mesh, its vertices are split along chart borders."""
    faces, first = welded_faces(mesh)
    return TriangleMesh(mesh.vertices[torch.from_numpy(first)], torch.from_numpy(faces))


def _spread(texture: Float[np.ndarray, "s s 3"], texels: Texels) -> UInt8[np.ndarray, "s s 3"]:
    """The texture with the space between the charts refilled from their borders."""
    return to_bytes(texels.image(texture[texels.rows, texels.columns]))
