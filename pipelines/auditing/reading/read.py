"""Reading of asset files of all formats."""

from __future__ import annotations

from pathlib import Path

from steindreamer.representations.mesh.file import read_with

from .asset_file import AssetFile
from .gltf_file import read_gltf_file
from .obj_file import read_obj_file
from .plain_files import read_ply_file, read_stl_file

_READERS = {
    ".glb": read_gltf_file,
    ".gltf": read_gltf_file,
    ".obj": read_obj_file,
    ".stl": read_stl_file,
    ".ply": read_ply_file,
}
FORMATS = tuple(_READERS)
"""Suffixes of the supported files."""


def read_asset_file(path: Path) -> AssetFile:
    """Read an asset file as it is written.

    Side files are read from the folder of the file only; those that cannot be read are listed in `AssetFile.missing`.

    Raises:
        ValueError: The format is not supported, the file is broken or too large, or it has no triangles.
        OSError: The file cannot be read.
    """
    return read_with(
        path, {suffix: lambda data, folder, read=read: read(data, path) for suffix, read in _READERS.items()}
    )
