"""Readers of STL and PLY, which have one mesh and no scene."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from steindreamer.representations.mesh.formats.parts import MeshPart
from steindreamer.representations.mesh.formats.ply import read_ply
from steindreamer.representations.mesh.formats.stl import read_stl

from .asset_file import AssetFile, Material, Part
from .limits import check_parts, checked_faces


def read_stl_file(data: bytes, path: Path) -> AssetFile:
    """Read an STL file, whose corners at one position are one vertex. Raises ValueError if it is broken."""
    parts = []
    for part in read_stl(data).parts:
        vertices, joined = np.unique(np.asarray(part.vertices, np.float64), axis=0, return_inverse=True)
        parts.append(MeshPart(vertices, joined.reshape(-1)[part.faces], part.paint))
    return _file(path, data, parts, named=False)


def read_ply_file(data: bytes, path: Path) -> AssetFile:
    """Read a PLY mesh. Raises ValueError if it is broken."""
    missing: list[str] = []
    return _file(path, data, read_ply(data, path.parent, missing.append).parts, named=False, missing=tuple(missing))


def _file(path: Path, data: bytes, found: list[MeshPart], *, named: bool, missing: tuple[str, ...] = ()) -> AssetFile:
    materials: list[Material] = []
    parts: list[Part] = []
    for index, part in enumerate(found):
        textured = part.paint.texture is not None
        if textured:
            materials.append(Material("", part.paint, physical=False))
        parts.append(
            Part(
                "",
                path.stem,
                index,
                len(materials) - 1 if textured else -1,
                np.eye(4),
                np.asarray(part.vertices, np.float64),
                checked_faces(part.faces, len(part.vertices)),
                uvs={} if part.coordinates is None else {0: part.coordinates},
                colors=part.tints,
            )
        )
    check_parts(parts)
    return AssetFile(
        path, path.suffix.lower()[1:], len(data), tuple(parts), tuple(materials), meters=False, named=named,
        missing=missing,
    )  # fmt: skip
