"""Three objects as meshes, and the same objects as Gaussians and as NeRFs, constructed without training."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import trimesh
from jaxtyping import Float
from mesh_samples import sphere
from scipy.spatial import KDTree
from torch import Tensor

from steindreamer.representations import Gaussians, GaussiansConfig, Nerf, NerfConfig, TriangleMesh
from steindreamer.representations.fields import BlobConfig, DenseGridConfig, RadianceFieldConfig
from steindreamer.representations.mesh.sampling import sample_surface
from steindreamer.representations.mesh.signed_distance import signed_distance
from steindreamer.representations.ops import logit
from steindreamer.world import parse_caption, sample_object

SCENES = ("sphere", "box", "mug")
SIDE_COLORS = torch.tensor(
    [[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.9, 0.8, 0.2], [0.2, 0.3, 0.8], [0.7, 0.3, 0.7], [0.3, 0.7, 0.8]]
)
"""Colors of the -x, +x, -y, +y, -z and +z sides of the box."""
SPREAD = 0.8
"""Tangential standard deviation of a Gaussian, in units of the mean spacing: large enough to leave no holes."""
THICKNESS = 1e-3
"""Standard deviation of a Gaussian along the surface normal, in meters."""
SOLIDITY = 2e5
"""Increase of the density (per meter) per meter of depth below a NeRF's surface: the transmittance is 1/2 at 3 mm."""


@lru_cache
def scene(name: str) -> TriangleMesh:
    """The mesh of an object.

    sphere: striped vertex colors; box: one color per side with sharp edges; mug: a smooth pattern as a texture. No
    coloring is mirror-symmetric.
    """
    return {"sphere": _sphere, "box": _box, "mug": _mug}[name]()


def _sphere() -> TriangleMesh:
    mesh = sphere(0.8, 5)
    phases = torch.tensor([[7.0, 3.0, 0.0], [0.0, 6.0, 4.0], [3.0, 0.0, -6.0]]) @ mesh.vertices.T
    return TriangleMesh(mesh.vertices, mesh.faces, mesh.vertices / 0.8, (0.5 + 0.35 * phases.sin()).T)


def _box() -> TriangleMesh:
    """A box with sides of different lengths; every side has its own vertices."""
    box = trimesh.creation.box(extents=[1.1, 0.9, 0.7])
    box.unmerge_vertices()
    normals = torch.from_numpy(box.vertex_normals.copy()).float()
    axis = normals.abs().argmax(1)
    side = 2 * axis + (normals.gather(1, axis[:, None])[:, 0] > 0)
    vertices, faces = torch.from_numpy(box.vertices.copy()).float(), torch.from_numpy(box.faces.copy()).long()
    return TriangleMesh(vertices, faces, normals, SIDE_COLORS[side])


def _mug() -> TriangleMesh:
    """A mug with a texture projected along z: u follows x, v follows -y."""
    mug = sample_object(parse_caption("a red mug"), np.random.default_rng(0))
    v, u = torch.meshgrid(torch.arange(64) / 64, torch.arange(64) / 64, indexing="ij")
    texture = torch.stack([0.6 + 0.3 * (20 * u).sin(), 0.3 + 0.2 * (14 * v + 6 * u).sin(), 0.2 + 0.5 * u])
    uvs = mug.vertices[:, :2] * torch.tensor([0.5, -0.5]) + 0.5
    return TriangleMesh(mug.vertices, mug.faces, mug.normals, uvs=uvs, texture=texture)


def as_gaussians(mesh: TriangleMesh, density: float, opacity: float) -> Gaussians:
    """Flat Gaussians at random points of the surface, `density` per square meter, whose axes are its normals."""
    corners = mesh.vertices[mesh.faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum() / 2
    samples = sample_surface(mesh, int(density * float(area)), torch.Generator().manual_seed(0))
    assert samples.colors is not None
    count, width = len(samples.points), SPREAD * density**-0.5
    log_scales = torch.tensor([width, width, THICKNESS]).log().repeat(count, 1)
    opacity_logits = torch.full((count,), opacity).logit()
    quaternions = _turning_z_to(samples.normals)
    config = GaussiansConfig(normals="axis")
    return Gaussians(samples.points, log_scales, quaternions, opacity_logits, logit(samples.colors), config)


def _turning_z_to(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Quaternions w, x, y, z that rotate z to n: 1 + z.n and z x n, normalized; for n = -z, a half turn about x."""
    x, y, z = normals.unbind(1)
    quaternions = torch.stack([1 + z, -y, x, torch.zeros_like(z)], 1)
    return torch.where((z < -0.9999)[:, None], torch.tensor([0.0, 1.0, 0.0, 0.0]), quaternions)


def as_nerf(mesh: TriangleMesh, resolution: int, samples: int) -> Nerf:
    """A dense grid with the signed distance and nearest surface color, and a network that outputs them unchanged."""
    radiance = RadianceFieldConfig(
        encoding="dense",
        dense_grid=DenseGridConfig(resolution, 4),
        hidden=8,
        blob=BlobConfig(shape="none"),
    )
    nerf = NerfConfig(radiance=radiance, samples=samples).build(torch.Generator().manual_seed(0))
    axis = torch.linspace(-1, 1, resolution + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    points = torch.stack([x, y, z], -1).reshape(-1, 3)
    # relu(f) - relu(-f) = f.
    passing = torch.cat([torch.eye(4), -torch.eye(4)])
    with torch.no_grad():
        nerf.radiance.grid.table.copy_(_distances_and_colors(points, mesh, 2 / resolution)[None])
        nerf.radiance.inner.weight.copy_(passing)
        nerf.radiance.inner.bias.zero_()
        nerf.radiance.outer.weight.copy_(torch.tensor([-SOLIDITY, 1, 1, 1])[:, None] * passing.T)
        nerf.radiance.outer.bias.zero_()
    look = torch.Generator().manual_seed(1)
    # Each update samples one point per cell; cells that the surface barely enters need many updates.
    for _ in range(20):
        nerf.occupancy.update(nerf.radiance.density, look)
    return nerf


def _distances_and_colors(points: Float[Tensor, "n 3"], mesh: TriangleMesh, cell: float) -> Float[Tensor, "n 4"]:
    """Signed distance in meters and logits of the nearest surface's sRGB.

    Only a shell of two cell diagonals is solid: it is opaque, and deeper parts are invisible.
    """
    samples = sample_surface(mesh, 200_000, torch.Generator().manual_seed(2))
    assert samples.colors is not None
    reach = 2 * math.sqrt(3) * cell
    # Without a bound, the search takes minutes: all points are equally far from the center of a sphere.
    distance, nearest = KDTree(samples.points.numpy()).query(points.numpy(), distance_upper_bound=reach)
    near = torch.from_numpy(distance) < reach
    values = torch.cat([torch.full((len(points), 1), reach), torch.zeros(len(points), 3)], 1)
    values[near, 0] = signed_distance(points[near], mesh)
    values[near, 1:] = logit(samples.colors[torch.from_numpy(nearest)[near]])
    return values
