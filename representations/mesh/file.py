"""Reading of mesh files as triangle meshes with materials."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..files.regular import read_regular_file
from ..placement import Placement
from .formats.gltf import read_gltf
from .formats.obj import read_obj
from .formats.off import read_off
from .formats.orientation import inward_faces
from .formats.parts import MAX_ELEMENTS, MAX_FACES, MeshPart, MeshParts, Warn
from .formats.ply import read_ply
from .formats.stl import read_stl
from .painted import PaintedMesh

_READERS: dict[str, Callable[[bytes, Path, Warn], MeshParts]] = {
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": lambda data, folder, warn: read_stl(data),
    ".off": lambda data, folder, warn: read_off(data),
}
FORMATS = tuple(_READERS)
"""Suffixes of the supported files."""

Content = TypeVar("Content")
"""Type of the content of a file."""

_log = logging.getLogger(__name__)


def read_mesh(path: Path) -> PaintedMesh:
    """Read all parts of a mesh file as one mesh, in the coordinates of the file (meters, +Y up).

    Colors come from materials, textures and vertices; `colors` has those at the vertices. Missing or unreadable
    materials and textures are logged as one-line warnings, and the surface is gray or has the plain color of its
    material. Textures and buffers are read from the folder of the file only.

    Raises:
        ValueError: The format is not supported, the file is broken or too large, or no face has an area.
        OSError: The file cannot be read.

    Example:
        >>> mesh = read_mesh(Path("chair.glb"))
    """
    mesh = _read(path)
    return replace(mesh, vertices=mesh.vertices.float())


def read_fitted_mesh(path: Path, yaw: float = 0.0, *, maps: bool = False) -> tuple[PaintedMesh, Placement]:
    """Read a mesh file, rotated by `yaw` degrees about +Y and fitted into the unit ball, and its `Placement`.

    It raises the same errors as `read_mesh`.

    Args:
        path: The file.
        yaw: Rotation in degrees.
        maps: Whether to read also the normals and materials (`Paint.maps`) of a glTF file.
    """
    mesh = _read(path, maps)
    try:
        placement = Placement.fit(mesh.vertices, yaw=yaw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    normals = None if mesh.normals is None else placement.turn(mesh.normals)
    return replace(mesh, vertices=placement.apply(mesh.vertices).float(), normals=normals), placement


def _read(path: Path, maps: bool = False) -> PaintedMesh:
    chosen = _READERS | ({suffix: partial(read_gltf, maps=True) for suffix in (".glb", ".gltf")} if maps else {})

    def warn(line: str) -> None:
        _log.warning("%s: %s", path, line)

    def checked(reader: Callable[[bytes, Path, Warn], MeshParts]) -> Callable[[bytes, Path], PaintedMesh]:
        return lambda data, folder: _checked(reader(data, folder, warn), warn)

    return read_with(path, {suffix: checked(reader) for suffix, reader in chosen.items()})


def read_with(path: Path, readers: Mapping[str, Callable[[bytes, Path], Content]]) -> Content:
    """Read a mesh file with the reader of its format; errors of any type become one line that names the file.

    Args:
        path: The file.
        readers: Functions of the content and the folder of a file, by suffix.

    Raises:
        ValueError: The format is not supported, or the file is broken or too large.
        OSError: The file cannot be read.
    """
    if path.suffix.lower() not in readers:
        raise ValueError(f"cannot read {path.name} as a mesh; supported formats: {', '.join(readers)}")
    if not path.exists():
        raise FileNotFoundError(f"there is no mesh file {path}")
    data = read_regular_file(path)
    try:
        # Overflows are detected at the end.
        with np.errstate(all="ignore"):
            return readers[path.suffix.lower()](data, path.parent)
    except MemoryError:
        raise
    except OSError as error:
        raise ValueError(f"cannot read {path}: it needs {error.filename}: {error.strerror}") from error
    except Exception as error:  # parsers may raise any type for a broken file
        text = " ".join(str(error).split())
        reason = text if isinstance(error, ValueError) and text else f"it is broken ({type(error).__name__}: {text})"
        raise ValueError(f"cannot read {path}: {reason[:400]}") from error


def _checked(found: MeshParts, warn: Warn) -> PaintedMesh:
    """Join all parts to one mesh without degenerate faces. Raises ValueError if no valid surface is left."""
    parts = [part for part in found.parts if len(part.faces)]
    if not parts:
        raise ValueError("it has no triangles")
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
        warn(f"{inward.sum()} faces of separate parts face inward; these parts are flipped")
        faces[inward] = faces[inward][:, ::-1]
    mesh = PaintedMesh(
        torch.from_numpy(vertices),
        torch.from_numpy(faces),
        normals=_normals(pieces, np.unique(faces[inward])),
        paints=tuple(piece.paint for piece in pieces),
        paint_of_face=torch.repeat_interleave(torch.tensor([len(piece.faces) for piece in pieces])),
        tints=torch.from_numpy(np.concatenate([_columns(piece.tints, piece, 3, 1.0) for piece in pieces])),
        coordinates=torch.from_numpy(np.concatenate([_columns(piece.coordinates, piece, 2, 0.0) for piece in pieces])),
        linear=found.linear,
        origins=tuple(replace(piece.origin, has_coordinates=piece.coordinates is not None) for piece in pieces),
    )
    return replace(mesh, colors=mesh.vertex_colors())


def _normals(pieces: list[MeshPart], flipped: np.ndarray) -> Float[Tensor, "v 3"] | None:
    """Normals of all vertices, reversed where the faces were; None unless all parts have valid ones."""
    given = [piece.normals for piece in pieces if piece.normals is not None]
    if len(given) < len(pieces):
        return None
    normals = np.concatenate(given)
    normals[flipped] *= -1
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 1e-6)).all():
        return None
    return torch.from_numpy((normals / length).astype(np.float32))


def _solid(part: MeshPart) -> MeshPart:
    """The part without degenerate faces and unused vertices."""
    vertices, faces = np.asarray(part.vertices, np.float64), np.asarray(part.faces, np.int64)
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise ValueError(f"a face refers to vertex {faces.max()}; there are {len(vertices)}")
    if not np.isfinite(vertices[faces]).all():
        raise ValueError("it has vertices that are not finite (NaN or infinite)")
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    # Relative to the size of the mesh, since a small mesh has small areas.
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
        normals=None if part.normals is None else part.normals[used],
    )


def _columns(values: np.ndarray | None, part: MeshPart, width: int, default: float) -> np.ndarray:
    """Values of all vertices; `default` where they are missing or not finite."""
    if values is None:
        return np.full((len(part.vertices), width), default)
    return np.nan_to_num(np.asarray(values, np.float64), nan=default, posinf=default, neginf=default)
