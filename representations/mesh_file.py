"""Triangle meshes from files of other programs, with the colors that their surface has."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from .mesh_formats.gltf import read_gltf
from .mesh_formats.obj import read_obj
from .mesh_formats.off import read_off
from .mesh_formats.orientation import inward_faces
from .mesh_formats.parts import MAX_ELEMENTS, MAX_FACES, MeshPart, MeshParts, Tell
from .mesh_formats.ply import read_ply
from .mesh_formats.stl import read_stl
from .painted_mesh import PaintedMesh
from .placement import Placement
from .regular_file import read_regular_file

_READERS: dict[str, Callable[[bytes, Path, Tell], MeshParts]] = {
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": lambda data, folder, tell: read_stl(data),
    ".off": lambda data, folder, tell: read_off(data),
}
FORMATS = tuple(_READERS)

_log = logging.getLogger(__name__)


def read_mesh(path: Path) -> PaintedMesh:
    """All parts of a mesh file as one mesh, in the file's own space (metres, +Y up).

    Colors are those of materials, textures and vertices; `colours` has those at the vertices. What cannot be found or
    read of them is told as a warning of `logging`, one line each, and left out: the surface is then grey, or has its
    material's plain color. Textures and buffers are read from the file's folder only.

    Raises ValueError for another format, a file that is broken or too large, and one without a face that has an area;
    OSError for a missing file.
    """
    mesh = _read(path)
    return replace(mesh, vertices=mesh.vertices.float())


def read_fitted_mesh(path: Path, yaw: float = 0.0) -> tuple[PaintedMesh, Placement]:
    """The same, turned by `yaw` degrees and fitted into the unit ball, and where it was. Raises the same."""
    mesh = _read(path)
    try:
        placement = Placement.fit(mesh.vertices, yaw=yaw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return replace(mesh, vertices=placement.apply(mesh.vertices).float()), placement


def _read(path: Path) -> PaintedMesh:
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"cannot read {path.name} as a mesh; accepted are {', '.join(FORMATS)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no mesh file {path}")
    data = read_regular_file(path)

    def tell(line: str) -> None:
        _log.warning("%s: %s", path, line)

    try:
        # What overflows on the way is found at the end.
        with np.errstate(all="ignore"):
            return _checked(_READERS[path.suffix.lower()](data, path.parent, tell), tell)
    except MemoryError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {path}: it needs {error.filename}: {error.strerror}") from error
    except Exception as error:  # parsers raise whatever they stumble over in a file that is not what it says
        text = " ".join(str(error).split())
        said = text if isinstance(error, ValueError) and text else f"it is broken ({type(error).__name__}: {text})"
        raise ValueError(f"cannot read {path}: {said[:400]}") from error


def _checked(found: MeshParts, tell: Tell) -> PaintedMesh:
    """All parts as one mesh, of the faces that have an area. Raises ValueError for what no surface can be made of."""
    parts = [part for part in found.parts if len(part.faces)]
    if not parts:
        raise ValueError("it holds no triangles")
    if sum(len(part.faces) for part in parts) > MAX_FACES or sum(len(p.vertices) for p in parts) > MAX_ELEMENTS:
        raise ValueError(f"it has more than {MAX_FACES} triangles, or too many vertices; simplify it")
    pieces = [_solid(part) for part in parts]
    vertices = np.concatenate([piece.vertices for piece in pieces])
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts, strict=False)])
    if len(faces) == 0:
        raise ValueError("none of its triangles has an area")
    inward = inward_faces(vertices, faces)
    if inward.any():
        tell(f"{inward.sum()} faces of separate parts look inward; these parts are turned around")
        faces[inward] = faces[inward][:, ::-1]
    mesh = PaintedMesh(
        torch.from_numpy(vertices),
        torch.from_numpy(faces),
        paints=tuple(piece.paint for piece in pieces),
        paint_of_face=torch.repeat_interleave(torch.tensor([len(piece.faces) for piece in pieces])),
        tints=torch.from_numpy(np.concatenate([_columns(piece.tints, piece, 3, 1.0) for piece in pieces])),
        coordinates=torch.from_numpy(np.concatenate([_columns(piece.coordinates, piece, 2, 0.0) for piece in pieces])),
        linear=found.linear,
    )
    return replace(mesh, colours=mesh.vertex_colours())


def _solid(part: MeshPart) -> MeshPart:
    """Only faces with an area, and only the vertices that these use."""
    vertices, faces = np.asarray(part.vertices, np.float64), np.asarray(part.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"a face refers to vertex {faces.max()}; there are {len(vertices)}")
    if not np.isfinite(vertices[faces]).all():
        raise ValueError("it has vertices that are not finite (NaN or infinite)")
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    # Relative to its own size: a small mesh has small areas.
    sides = np.stack([b - a, c - a], 1)
    sides /= max(float(np.abs(sides).max()), np.finfo(np.float64).tiny)
    faces = faces[(np.abs(np.cross(sides[:, 0], sides[:, 1])) > 0).any(1)]
    used, faces = np.unique(faces, return_inverse=True)
    return replace(
        part,
        vertices=vertices[used],
        faces=faces.reshape(-1, 3),
        tints=None if part.tints is None else part.tints[used],
        coordinates=None if part.coordinates is None else part.coordinates[used],
    )


def _columns(values: np.ndarray | None, part: MeshPart, width: int, default: float) -> np.ndarray:
    """Of all vertices; `default` where there is nothing, or nothing finite."""
    if values is None:
        return np.full((len(part.vertices), width), default)
    return np.nan_to_num(np.asarray(values, np.float64), nan=default, posinf=default, neginf=default)
