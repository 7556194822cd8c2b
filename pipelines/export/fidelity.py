"""Similarity of the exported mesh and its representation: color difference and silhouettes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from skimage.color import deltaE_ciede2000, rgb2lab

from steindreamer.representations import Cameras, RenderOutput, Representation, TriangleMesh, render_mesh
from steindreamer.representations.mesh.painted import PaintedMesh
from steindreamer.representations.mesh.rasterization import rasterize

from ..meshing.views import Views, photograph

SAMPLES = 2
"""Samples per pixel along each axis."""


@dataclass(frozen=True)
class Fidelity:
    """Color difference and silhouette overlap of a mesh and its representation."""

    color_difference: float
    """Mean CIEDE2000 over the pixels that both cover; about 2 is just noticeable."""
    silhouette_iou: float
    """Intersection over union of the covered pixels, [0, 1]."""


def color_fidelity(representation: Representation, mesh: TriangleMesh, *, cameras: Cameras | None = None) -> Fidelity:
    """Compare renders of both from the same cameras (default: twelve that the bake does not use)."""
    cameras = fidelity_cameras() if cameras is None else cameras
    return compare(photograph(representation, cameras), mesh)


def fidelity_cameras(size: int = 192) -> Cameras:
    """Twelve cameras around the object at three elevations.

    Args:
        size: image size in pixels.
    """
    azimuth = [index * 30.0 for index in range(12)]
    elevation = [(-15.0, 10.0, 40.0)[index % 3] for index in range(12)]
    return Cameras.orbit(azimuth, elevation, height=size)


def compare(views: Views, mesh: TriangleMesh) -> Fidelity:
    """Compare the mesh with existing images of the representation."""
    # Four samples per pixel, because the representation has soft edges.
    return compare_renders(views, lambda camera: render_mesh(mesh, camera, torch.zeros(1, 3), supersample=2))


@torch.no_grad()
def compare_renders(views: Views, render: Callable[[Cameras], RenderOutput]) -> Fidelity:
    """Compare renders on black, one camera at a time, with existing images.

    Raises ValueError if they share no pixel.
    """
    level = views.solid_level()
    differences, both_count, either_count = [], 0, 0
    for index in range(len(views.cameras)):
        drawn = render(views.cameras[index : index + 1])
        solid, covered = views.opacity[index, 0] > level, drawn.opacity[0, 0] > 0.5
        both_count += int((solid & covered).sum())
        either_count += int((solid | covered).sum())
        inner = solid & (drawn.opacity[0, 0] > 0.999)
        mine, theirs = drawn.rgb[0][:, inner].T.numpy(), views.rgb[index][:, inner].T.numpy()
        differences.append(torch.from_numpy(deltaE_ciede2000(rgb2lab(theirs), rgb2lab(mine))))
    difference = torch.cat(differences)
    if len(difference) == 0:
        raise ValueError("the mesh and the representation share no pixel in any view; is the mesh in the same place?")
    return Fidelity(float(difference.mean()), both_count / either_count)


def render_any(mesh: TriangleMesh, cameras: Cameras, samples: int = SAMPLES) -> RenderOutput:
    """Render a mesh unlit on black, with its materials if it has them; see `render_mesh`."""
    if not isinstance(mesh, PaintedMesh):
        return render_mesh(mesh, cameras, torch.zeros(len(cameras), 3), supersample=samples)
    fragments = rasterize(mesh.vertices, mesh.faces, cameras.resized(cameras.height * samples, cameras.width * samples))
    covered = fragments.triangle >= 0
    colors = mesh.colors_at(fragments.triangle[covered].long(), fragments.barycentrics[covered])
    rgb = torch.zeros(*covered.shape, 3)
    rgb[covered] = colors
    mask = covered[:, None].float()
    opacity, depth = F.avg_pool2d(mask, samples), F.avg_pool2d(fragments.depth[:, None], samples)
    return RenderOutput(
        rgb=F.avg_pool2d(rgb.permute(0, 3, 1, 2), samples),
        opacity=opacity,
        depth=torch.where(opacity > 0, depth / opacity, depth),
        normal=torch.zeros(len(cameras), 3, cameras.height, cameras.width),
    )
