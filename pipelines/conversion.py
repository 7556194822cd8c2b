"""From one scene to the next: any representation becomes a deformable mesh, or a fixed mesh with a texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from ..representations import Cameras, DmtetConfig, DmtetMesh, Representation, TextureConfig, TexturedMesh
from .devices import device_of
from .export import ExportConfig, clean_mesh, extract_surface
from .export.bake import vertex_colours
from .export.page import texture_surface
from .export.stopwatch import Stopwatch
from .export.surface import SurfaceConfig
from .export.views import photograph, take_views

NEIGHBOURS = 3
"""Surface points whose colours are blended."""


def to_deformable_mesh(
    scene: Representation, config: DmtetConfig, export: ExportConfig, generator: torch.Generator
) -> DmtetMesh:
    """A tetrahedral mesh on the scene's surface, with the colours of its pictures.

    The surface is found as for the export, at `export.resolution`. Raises ValueError if the scene is empty.
    """
    views = take_views(scene, export.cameras, export.view_size)
    surface = extract_surface(scene, SurfaceConfig(export.source, export.resolution), views)
    surface = clean_mesh(surface, None, smoothing=export.smoothing, smallest_part=export.smallest_part)
    colours = nearest_colours(surface.vertices, vertex_colours(surface, views))
    return DmtetMesh.from_surface(surface, colours, config, generator, device_of(scene))


def to_textured_mesh(
    scene: Representation, config: TextureConfig, export: ExportConfig, report: Callable[[str], None]
) -> TexturedMesh:
    """The mesh that the export would write, its texture trainable. Raises ValueError if the scene is empty."""
    views = take_views(scene, export.cameras, export.view_size)
    surface = texture_surface(scene, views, export, Stopwatch(report))
    return TexturedMesh.from_mesh(surface.mesh, config, detail=surface.detailed).to(device_of(scene))


def nearest_colours(
    points: Float[Tensor, "m 3"], colours: Float[Tensor, "m 3"]
) -> Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]:
    """Colour by position: that of the nearest coloured points, weighted by inverse distance."""
    tree, values = KDTree(points.numpy()), colours.numpy()

    def look_up(where: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        distance, index = tree.query(where.detach().cpu().numpy(), k=min(NEIGHBOURS, len(values)))
        share = 1 / np.maximum(distance.reshape(len(where), -1), 1e-9)
        blended = (values[index].reshape(len(where), -1, 3) * (share / share.sum(1, keepdims=True))[..., None]).sum(1)
        return torch.from_numpy(blended.astype(np.float32)).to(where.device)

    return look_up


def likeness(before: Representation, after: Representation, size: int = 256) -> float:
    """PSNR (dB) between the pictures of two scenes, on black: the mean over eight cameras around them."""
    cameras = Cameras.orbit([45.0 * i for i in range(8)], [(-10.0, 20.0, 50.0)[i % 3] for i in range(8)], height=size)
    one, other = (photograph(scene, cameras) for scene in (before, after))
    errors = (one.rgb * one.opacity - other.rgb * other.opacity).square().mean((1, 2, 3))
    return float((-10 * errors.clamp_min(1e-10).log10()).mean())
