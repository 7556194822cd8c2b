"""Conversion between stages: the surfaces of an earlier scene, for the representation that takes it over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor

from steindreamer.representations import Cameras, ColoredSurface, Representation, TriangleMesh

from .atlas import plain_surface, texture_surface
from .bake import vertex_colors
from .config import MeshingConfig
from .stopwatch import Stopwatch
from .views import photograph, take_views

NEIGHBORS = 3
"""Number of the nearest surface points whose colors are blended."""


@dataclass(frozen=True)
class Conversion:
    """The `SceneContext` of a conversion, with surfaces extracted as `export` does."""

    export: MeshingConfig
    generator: torch.Generator
    device: torch.device

    def surface(self, scene: Representation) -> ColoredSurface:
        """The surface before its triangles are reduced, at `export.resolution`, with the colors of its renders."""
        views = take_views(scene, self.export.cameras, self.export.view_size)
        mesh = plain_surface(scene, views, self.export)
        return ColoredSurface(mesh, nearest_colors(mesh.vertices, vertex_colors(mesh, views)))

    def textured_mesh(self, scene: Representation) -> tuple[TriangleMesh, TriangleMesh]:
        """The mesh that the export would write, and the surface that it was simplified from."""
        views = take_views(scene, self.export.cameras, self.export.view_size)
        surface = texture_surface(scene, views, self.export, Stopwatch())
        return surface.mesh, surface.detailed


def nearest_colors(
    points: Float[Tensor, "m 3"], colors: Float[Tensor, "m 3"]
) -> Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]:
    """A function of position that blends the colors of the nearest points, weighted by inverse distance."""
    tree, values = KDTree(points.numpy()), colors.numpy()

    def look_up(where: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        distance, index = tree.query(where.detach().cpu().numpy(), k=min(NEIGHBORS, len(values)))
        fraction = 1 / np.maximum(distance.reshape(len(where), -1), 1e-9)
        blended = (
            values[index].reshape(len(where), -1, 3) * (fraction / fraction.sum(1, keepdims=True))[..., None]
        ).sum(1)
        return torch.from_numpy(blended.astype(np.float32)).to(where.device)

    return look_up


def conversion_psnr(before: Representation, after: Representation, size: int = 256) -> float:
    """PSNR (dB) between the images of two scenes, on black: the mean over eight cameras around them."""
    cameras = Cameras.orbit([45.0 * i for i in range(8)], [(-10.0, 20.0, 50.0)[i % 3] for i in range(8)], height=size)
    one, other = (photograph(scene, cameras) for scene in (before, after))
    errors = (one.rgb * one.opacity - other.rgb * other.opacity).square().mean((1, 2, 3))
    return float((-10 * errors.clamp_min(1e-10).log10()).mean())
