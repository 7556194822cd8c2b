"""Renders of any mesh, and their difference from those of the source."""

from __future__ import annotations

import torch

from steindreamer.representations import Cameras, TriangleMesh, sphere_of_cameras
from steindreamer.representations.mesh.rasterization import rasterize

from ..export.fidelity import Fidelity, compare_renders, render_any
from ..meshing.views import Views

VIEWS, SIZE = 16, 192
"""Number and size in pixels of the images that measure a difference."""


def views_of(mesh: TriangleMesh, cameras: Cameras | None = None) -> Views:
    """Images of a mesh from all sides, against which others are compared."""
    cameras = sphere_of_cameras(VIEWS, height=SIZE) if cameras is None else cameras
    drawn = [render_any(mesh, cameras[i : i + 1]) for i in range(len(cameras))]
    rgb, opacity, depth, normal = (
        torch.cat([getattr(each, name) for each in drawn]) for name in ("rgb", "opacity", "depth", "normal")
    )
    return Views(
        cameras, torch.where(opacity > 0, rgb / opacity.clamp_min(1e-3), rgb).clamp(0, 1), opacity, depth, normal
    )


def difference(views: Views, mesh: TriangleMesh) -> Fidelity:
    """The color difference and the overlap of silhouettes of a mesh and of existing images."""
    return compare_renders(views, lambda camera: render_any(mesh, camera))


def silhouette_overlap(views: Views, mesh: TriangleMesh) -> float:
    """Intersection over union of the silhouettes of a mesh and of existing images; faster than `difference`."""
    covered = [
        rasterize(mesh.vertices, mesh.faces, views.cameras[i : i + 1]).triangle >= 0 for i in range(len(views.cameras))
    ]
    mine, theirs = torch.cat(covered), views.opacity[:, 0] > 0.5
    return float((mine & theirs).sum() / (mine | theirs).sum().clamp_min(1))
