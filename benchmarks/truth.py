"""How far a mesh is from the true object: shared by the benchmarks that know the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import KDTree

from steindreamer.representations import Cameras, TriangleMesh, render_mesh, sphere_of_cameras


def visible_points(mesh: TriangleMesh) -> np.ndarray:
    """World points of the surface that can be seen from outside, `[n, 3]`."""
    cameras = sphere_of_cameras(24, height=128)
    depth = render_mesh(TriangleMesh(mesh.vertices, mesh.faces), cameras, torch.zeros(24, 3)).depth
    return cameras.unproject(depth).permute(0, 2, 3, 1)[depth[:, 0] > 0].numpy()


def chamfer_millimetres(first: TriangleMesh, second: TriangleMesh) -> float:
    """Mean distance between the visible surfaces, accuracy and completeness averaged (objects: 900 mm in radius)."""
    a, b = visible_points(first), visible_points(second)
    return 500 * float(KDTree(a).query(b)[0].mean() + KDTree(b).query(a)[0].mean())


def held_out_psnr(mesh: TriangleMesh, truth: TriangleMesh, views: int = 16, size: int = 256) -> float:
    """PSNR (dB) of the unlit pictures on white, mean over views at heights and azimuths of no training grid."""
    return float(np.mean(list(_psnr_per_view(mesh, truth, views, size))))


def _psnr_per_view(mesh: TriangleMesh, truth: TriangleMesh, views: int, size: int) -> Iterator[float]:
    white = torch.ones(1, 3)
    for index in range(views):
        elevation = (-12.0, 8.0, 33.0, 58.0)[index % 4]
        camera = Cameras.orbit([360.0 * (index + 0.5) / views], [elevation], height=size)
        one, other = (render_mesh(shape, camera, white, supersample=3).rgb for shape in (mesh, truth))
        yield -10 * float((one - other).square().mean().clamp_min(1e-10).log10())
