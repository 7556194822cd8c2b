"""Surface extraction and USD files with NVIDIA Kaolin [Fuji Tsang et al. 2022], 0.17 or newer; an optional package."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steindreamer.optional import load

from ..mesh.tetrahedra.grid import TetrahedralGrid
from ..triangle_mesh import TriangleMesh

INSTALL = (
    "pip install --no-build-isolation 'git+https://github.com/NVIDIAGameWorks/kaolin.git' (compiles; NVIDIA has wheels "
    "for some versions of torch, see docs/optional_packages.md; the kaolin on PyPI is an empty placeholder)"
)


def marching_tetrahedra(
    positions: Float[Tensor, "n 3"], sdf: Float[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """Kaolin's marching tetrahedra, with the conventions of `tetrahedra.marching_tetrahedra`.

    It processes all tetrahedra, which `grid` enumerates at every call. Raises ValueError if kaolin is not installed.
    """
    conversions = load("kaolin.ops.conversions", INSTALL)
    # Kaolin counts zero as negative and orients the faces toward the positive side. With the sign flipped, zero is
    # outside as in our convention, and the faces have to be flipped back.
    (vertices,), (faces,) = conversions.marching_tetrahedra(
        positions[None], grid.tetrahedra.to(positions.device), -sdf[None]
    )
    return vertices, faces.flip(1)


def flexicubes(sdf: Float[Tensor, "x y z"], extent: float = 1.0) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """Extract the zero level of a signed distance by FlexiCubes [Shen et al. 2023, arXiv:2308.05371], default weights.

    The vertices are differentiable in `sdf`. Without a negative value there are no vertices and no faces.

    Args:
        sdf: Signed distances in meters, negative inside, at the corners of a grid over the cube [-extent, extent]^3.
        extent: Half the side of the cube in meters.

    Raises:
        ValueError: kaolin is not installed.
    """
    extractor = load("kaolin.ops.conversions", INSTALL).FlexiCubes(device=sdf.device)
    cells = [side - 1 for side in sdf.shape]
    corners, cubes = extractor.construct_voxel_grid(cells)
    # Kaolin's corners lie in [-0.5, 0.5], rounded to five digits, in its own order.
    index = ((corners + 0.5) * corners.new_tensor(cells)).round().long()
    positions = extent * (2 * index / corners.new_tensor(cells) - 1)
    vertices, faces, _ = extractor(positions, sdf[index.unbind(1)], cubes, cells)
    return vertices, faces


def export_usd(mesh: TriangleMesh, path: Path) -> None:
    """Write vertices, faces, normals and texture coordinates as .usd, .usda or .usdc (+Y up, meters).

    Colors and the texture are not written. An existing file is replaced. Raises ValueError if kaolin is not installed.
    """
    kaolin_usd = load("kaolin.io.usd", INSTALL)
    usd, geometry = load("pxr.Usd", INSTALL), load("pxr.UsdGeom", INSTALL)
    path = path.resolve()
    # Depending on its version, Kaolin refuses an existing file or appends the mesh to it.
    path.unlink(missing_ok=True)
    # Kaolin flips v itself. Since 0.18 it returns None.
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
    """Read all meshes of a USD file as one triangle mesh in meters with +Y up, without normals, colors and texture.

    Vertices with several texture coordinates are split.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: kaolin is not installed, or the file contains no mesh with faces.
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
        raise ValueError(f"{path} contains no mesh with faces")
    vertices = mesh.vertices * geometry.GetStageMetersPerUnit(stage)
    if geometry.GetStageUpAxis(stage) == "Z":
        x, y, z = vertices.unbind(1)
        vertices = torch.stack([x, z, -y], 1)
    if mesh.face_uvs_idx is None:
        return TriangleMesh(vertices, mesh.faces)
    corners = torch.stack([mesh.faces, mesh.face_uvs_idx], 2).reshape(-1, 2)
    # Kaolin has already flipped v.
    distinct, faces = torch.unique(corners, dim=0, return_inverse=True)
    vertex, uv = distinct.unbind(1)
    return TriangleMesh(vertices[vertex], faces.reshape(-1, 3), uvs=mesh.uvs[uv])
