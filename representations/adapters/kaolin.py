"""Surface extraction and USD files by NVIDIA Kaolin [Fuji Tsang et al. 2022], 0.17 or newer; an optional package."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..dmtet.grid import TetrahedralGrid
from ..mesh import TriangleMesh
from .loading import load

INSTALL = (
    "pip install --no-build-isolation 'git+https://github.com/NVIDIAGameWorks/kaolin.git' (compiles; NVIDIA has wheels "
    "for some versions of torch, see docs/optional_packages.md; the kaolin on PyPI is an empty placeholder)"
)


def marching_tetrahedra(
    positions: Float[Tensor, "n 3"], sdf: Float[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """Like `dmtet.marching_tetrahedra`, but over all tetrahedra, which `grid` lists anew at every call.

    Raises ValueError without kaolin.
    """
    conversions = load("kaolin.ops.conversions", INSTALL)
    # It counts zero as negative, and winds the faces so that they look towards the positive side: with the sign turned,
    # zero is outside as it is for us, and the faces have to be turned back.
    (vertices,), (faces,) = conversions.marching_tetrahedra(
        positions[None], grid.tetrahedra.to(positions.device), -sdf[None]
    )
    return vertices, faces.flip(1)


def flexicubes(sdf: Float[Tensor, "x y z"], extent: float = 1.0) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """The zero level of a signed distance by FlexiCubes [Shen et al. 2023, arXiv:2308.05371] with its neutral weights.

    `sdf` (negative inside) stands on the corners of a grid over the cube [-extent, extent]^3, metres; the vertices are
    differentiable in it. No vertices and no faces where nothing is inside. Raises ValueError without kaolin.
    """
    extractor = load("kaolin.ops.conversions", INSTALL).FlexiCubes(device=sdf.device)
    cells = [side - 1 for side in sdf.shape]
    corners, cubes = extractor.construct_voxel_grid(cells)
    # Its corners lie in [-0.5, 0.5], rounded to five digits and in an order of its own.
    index = ((corners + 0.5) * corners.new_tensor(cells)).round().long()
    positions = extent * (2 * index / corners.new_tensor(cells) - 1)
    vertices, faces, _ = extractor(positions, sdf[index.unbind(1)], cubes, cells)
    return vertices, faces


def export_usd(mesh: TriangleMesh, path: Path) -> None:
    """Write vertices, faces, normals and texture coordinates as .usd, .usda or .usdc (+Y up, metres).

    Colours and the texture are not written. An existing file is replaced. Raises ValueError without kaolin.
    """
    kaolin_usd = load("kaolin.io.usd", INSTALL)
    usd, geometry = load("pxr.Usd", INSTALL), load("pxr.UsdGeom", INSTALL)
    path = path.resolve()
    # Kaolin would refuse an existing file, or add the mesh to what it holds, as its version is.
    path.unlink(missing_ok=True)
    # It turns v upwards itself. Since 0.18 it returns nothing.
    kaolin_usd.export_mesh(
        str(path),
        vertices=mesh.vertices.detach(),
        faces=mesh.faces.contiguous(),
        uvs=None if mesh.uvs is None else mesh.uvs.detach(),
        face_normals=None if mesh.normals is None else mesh.normals.detach()[mesh.faces],
        up_axis="Y",
    )
    stage = usd.Stage.Open(str(path))
    geometry.SetStageMetersPerUnit(stage, 1.0)
    stage.Save()


def import_usd(path: Path) -> TriangleMesh:
    """All meshes of a USD file as one, triangulated, in metres and with +Y up; without normals, colours and texture.

    Vertices with several texture coordinates are split. Raises FileNotFoundError, or ValueError without kaolin or for a
    file without a mesh.
    """
    kaolin_usd, handlers = load("kaolin.io.usd", INSTALL), load("kaolin.io.utils", INSTALL)
    usd, geometry = load("pxr.Usd", INSTALL), load("pxr.UsdGeom", INSTALL)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    stage = usd.Stage.Open(str(path))
    mesh = kaolin_usd.import_mesh(
        stage, heterogeneous_mesh_handler=handlers.mesh_handler_naive_triangulate, triangulate=True
    )
    if mesh is None or mesh.faces is None or not len(mesh.faces):
        raise ValueError(f"{path} holds no mesh with faces")
    vertices = mesh.vertices * geometry.GetStageMetersPerUnit(stage)
    if geometry.GetStageUpAxis(stage) == "Z":
        x, y, z = vertices.unbind(1)
        vertices = torch.stack([x, z, -y], 1)
    if mesh.face_uvs_idx is None:
        return TriangleMesh(vertices, mesh.faces)
    corners = torch.stack([mesh.faces, mesh.face_uvs_idx], 2).reshape(-1, 2)
    # Kaolin has turned v downwards.
    distinct, faces = torch.unique(corners, dim=0, return_inverse=True)
    vertex, uv = distinct.unbind(1)
    return TriangleMesh(vertices[vertex], faces.reshape(-1, 3), uvs=mesh.uvs[uv])
