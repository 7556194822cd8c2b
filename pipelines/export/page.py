"""From a scene to a mesh within the budget that carries a texture: what the export and a texture stage share."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ...representations import Queryable, Representation, TexturedMesh, TriangleMesh
from .bake import bake_colour, gather, to_bytes
from .cleanup import clean_mesh, is_closed_manifold, welded_faces
from .config import ExportConfig
from .stopwatch import Stopwatch
from .surface import SurfaceConfig, extract_surface
from .texels import Texels, rasterize_uvs
from .unwrap import unwrap
from .views import Views


@dataclass(frozen=True)
class TexturedSurface:
    """An unwrapped mesh with its base colour."""

    mesh: TriangleMesh
    """With normals, uvs and texture."""
    detailed: TriangleMesh
    """The surface before its triangles were reduced."""
    texels: Texels
    openness: Float[np.ndarray, " t"]
    """See `bake.Gathered`."""
    watertight: bool


def texture_surface(
    representation: Representation, views: Views, config: ExportConfig, watch: Stopwatch
) -> TexturedSurface:
    """Extract, clean, simplify, unwrap and bake.

    A `TexturedMesh` of the size that is asked for is taken as it is; else its finer mesh is simplified and unwrapped
    anew, and baked from its pictures. Raises ValueError if the scene is empty.
    """
    if isinstance(representation, TexturedMesh) and _fits(representation, config):
        mesh, detailed = representation.mesh(), representation.detail()
        watertight = is_closed_manifold(welded_faces(mesh)[0])
    else:
        with watch("surface"):
            if isinstance(representation, TexturedMesh):
                surface, smoothing = _welded(representation.detail()), 0
            else:
                surface = extract_surface(representation, SurfaceConfig(config.source, config.resolution), views)
                smoothing = config.smoothing
        with watch("cleanup"):
            detailed = clean_mesh(surface, None, smoothing=smoothing, smallest_part=config.smallest_part)
            mesh = clean_mesh(detailed, config.face_budget, smoothing=0, smallest_part=config.smallest_part)
            watertight = is_closed_manifold(mesh.faces.numpy())
        with watch("unwrap"):
            mesh = unwrap(mesh, config.texture_size, config.padding)
    with watch("bake"):
        texels = rasterize_uvs(mesh, config.texture_size)
        gathered = gather(mesh, texels, views)
        if mesh.texture is None:
            field = representation if isinstance(representation, Queryable) else None
            source = "renders" if isinstance(representation, TexturedMesh) else config.colour_source
            page = bake_colour(mesh, texels, gathered, source, field)
        else:
            page = _spread(mesh.texture.permute(1, 2, 0).numpy(), texels)
        mesh = replace(mesh, texture=torch.from_numpy(page).permute(2, 0, 1).float() / 255)
    return TexturedSurface(mesh, detailed, texels, gathered.openness, watertight)


def _fits(scene: TexturedMesh, config: ExportConfig) -> bool:
    size = config.texture_size
    return len(scene.faces) <= config.face_budget and tuple(scene.texture_logits.shape[1:]) == (size, size)


def _welded(mesh: TriangleMesh) -> TriangleMesh:
    """One vertex per place: a mesh without a finer one has its vertices split along chart borders."""
    faces, first = welded_faces(mesh)
    return TriangleMesh(mesh.vertices[torch.from_numpy(first)], torch.from_numpy(faces))


def _spread(texture: Float[np.ndarray, "s s 3"], texels: Texels) -> UInt8[np.ndarray, "s s 3"]:
    """The texture with everything between the charts filled anew from their borders."""
    return to_bytes(texels.image(texture[texels.rows, texels.columns]))
