"""A stand-in for the USD functions of Kaolin 0.18 that our adapter calls, based on usd-core.

Implemented from its documentation and behavior. `export_mesh` refuses an existing file, and returns None.
`import_mesh` returns None for a file without a mesh. Both flip v.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor


def stand_in() -> dict[str, ModuleType]:
    """The stand-in modules, by name."""
    modules = {name: ModuleType(name) for name in ("kaolin", "kaolin.io", "kaolin.io.usd", "kaolin.io.utils")}
    vars(modules["kaolin.io.usd"]).update(export_mesh=export_mesh, import_mesh=import_mesh)
    vars(modules["kaolin.io.utils"]).update(mesh_handler_naive_triangulate=_triangulated)
    return modules


def _pxr() -> Any:
    return SimpleNamespace(**{name: importlib.import_module(f"pxr.{name}") for name in ("Usd", "UsdGeom", "Sdf", "Vt")})


def export_mesh(
    file_path: str,
    scene_path: str = "/World/Meshes/mesh_0",
    vertices: Tensor | None = None,
    faces: Tensor | None = None,
    uvs: Tensor | None = None,
    face_normals: Tensor | None = None,
    up_axis: str = "Y",
    overwrite: bool = False,
) -> None:
    pxr = _pxr()
    if Path(file_path).exists() and not overwrite:
        raise FileExistsError(file_path)
    assert vertices is not None and faces is not None
    stage = pxr.Usd.Stage.CreateNew(file_path)
    pxr.UsdGeom.SetStageUpAxis(stage, up_axis)
    mesh = pxr.UsdGeom.Mesh.Define(stage, scene_path)
    mesh.GetPointsAttr().Set(pxr.Vt.Vec3fArray.FromNumpy(vertices.numpy()))
    mesh.GetFaceVertexCountsAttr().Set([faces.shape[1]] * len(faces))
    mesh.GetFaceVertexIndicesAttr().Set(faces.flatten().tolist())
    if uvs is not None:
        st = pxr.UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", pxr.Sdf.ValueTypeNames.Float2Array)
        st.Set(pxr.Vt.Vec2fArray.FromNumpy(_turned(uvs).numpy()))
        st.SetInterpolation("vertex" if len(uvs) == len(vertices) else "faceVarying")
    if face_normals is not None:
        mesh.GetNormalsAttr().Set(pxr.Vt.Vec3fArray.FromNumpy(face_normals.reshape(-1, 3).numpy()))
        mesh.SetNormalsInterpolation("faceVarying")
    stage.Save()


def import_mesh(stage: Any, heterogeneous_mesh_handler: Any = None, triangulate: bool = False) -> Any:
    """Join all meshes; polygons become fans of triangles."""
    assert triangulate and heterogeneous_mesh_handler is _triangulated
    geometry = _pxr().UsdGeom
    parts = [_read(geometry, prim) for prim in stage.Traverse() if prim.IsA(geometry.Mesh)]
    if not parts:
        return None
    vertices, faces, uvs, face_uvs = zip(*parts, strict=True)
    has_uvs = all(part is not None for part in uvs)
    return SimpleNamespace(
        vertices=torch.cat(vertices),
        faces=_stacked(faces, vertices),
        uvs=torch.cat(uvs) if has_uvs else None,
        face_uvs_idx=_stacked(face_uvs, uvs) if has_uvs else None,
    )


def _read(geometry: Any, prim: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    mesh = geometry.Mesh(prim)
    points = np.array(mesh.GetPointsAttr().Get(), np.float32).reshape(-1, 3)
    world = np.array(geometry.Xformable(prim).ComputeLocalToWorldTransform(0), np.float32)
    vertices = torch.from_numpy(np.pad(points, ((0, 0), (0, 1)), constant_values=1) @ world)[:, :3]
    counts = list(mesh.GetFaceVertexCountsAttr().Get() or [])
    corners = torch.tensor(list(mesh.GetFaceVertexIndicesAttr().Get() or []), dtype=torch.long)
    faces = _triangulated(corners, counts)
    st = geometry.PrimvarsAPI(prim).GetPrimvar("st")
    if not st.IsDefined():
        return vertices, faces, None, None
    uvs = _turned(torch.from_numpy(np.array(st.Get(), np.float32)))
    indices = torch.arange(len(corners)) if st.GetInterpolation() == "faceVarying" else corners
    return vertices, faces, uvs, _triangulated(indices, counts)


def _triangulated(corners: Tensor, counts: list[int]) -> Tensor:
    fans = [corners[:0].reshape(0, 3)]
    for polygon in corners.split(counts) if counts else ():
        fans += [polygon[[0, k, k + 1]][None] for k in range(1, len(polygon) - 1)]
    return torch.cat(fans)


def _stacked(indices: tuple[Tensor, ...], pointed_at: tuple[Tensor, ...]) -> Tensor:
    before = np.cumsum([0, *map(len, pointed_at)])
    return torch.cat([part + int(start) for part, start in zip(indices, before, strict=False)])


def _turned(uvs: Tensor) -> Tensor:
    return torch.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)
