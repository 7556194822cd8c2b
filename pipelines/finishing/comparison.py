"""Renders of any mesh, and their difference from those of the source."""

from __future__ import annotations

import torch

from steindreamer.representations import Cameras, TriangleMesh, sphere_of_cameras
from steindreamer.representations.mesh.painted import PaintedMesh
from steindreamer.representations.mesh.rasterization import rasterize

from ..export.fidelity import Fidelity, compare_renders, render_any
from ..meshing.views import Views

VIEWS, SIZE = 16, 192
"""Number and size in pixels of the images that measure a difference."""


def simplified(mesh: TriangleMesh) -> TriangleMesh:
    """A mesh whose only material is one plain texture as a textured mesh, which renders faster; others unchanged.

    Its texels are interpolated in display sRGB, which differs from linear RGB only at sharp borders of colors.
    """
    if not isinstance(mesh, PaintedMesh) or len(mesh.paints) != 1 or mesh.paints[0].texture is None:
        return mesh
    paint, texture = mesh.paints[0], mesh.paints[0].texture
    inside = bool((mesh.coordinates >= 0).all() and (mesh.coordinates <= 1).all())
    if paint.factor != (1.0, 1.0, 1.0) or not bool((mesh.tints == 1).all()) or not inside or not texture.smooth:
        return mesh
    texels = texture.texels.permute(2, 0, 1).float() / 255
    return TriangleMesh(mesh.vertices, mesh.faces, mesh.normals, uvs=mesh.coordinates.float(), texture=texels)


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
