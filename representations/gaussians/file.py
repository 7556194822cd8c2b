"""Files of Gaussians of all supported formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .gaussians import Gaussians, GaussiansConfig, SplatFormat
from .glb import SUFFIXES, glb_content, holds_only_gaussians, write_gaussian_glb
from .ply import ply_content, write_gaussian_ply

_HEADER = 65_536
"""Number of bytes in which the header of a splat file ends."""


def is_splat_file(path: Path) -> bool:
    """Whether a file has Gaussians instead of triangles: a 3DGS .ply (also a compressed one, which is refused on
    reading), or a .glb or .gltf with KHR_gaussian_splatting and no triangles.
    """
    suffix = path.suffix.lower()
    if suffix not in (".ply", *SUFFIXES) or not path.is_file():
        return False
    if suffix in SUFFIXES:
        return holds_only_gaussians(path)
    with path.open("rb") as file:
        header = file.read(_HEADER).partition(b"end_header")[0]
    return b" f_dc_0" in header or b" packed_position" in header


def fit_gaussians(path: Path, config: GaussiansConfig) -> Gaussians:
    """Read a splat file, fitted into the unit ball and rotated by `config.initial_yaw`; sets `placement`.

    Args:
        path: A .glb or .gltf with KHR_gaussian_splatting; any other file is read as a 3DGS .ply.
        config: Settings of the scene.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is broken or has no Gaussians, all are invisible, or outliers make the scene mostly empty
            space.
    """
    content = glb_content(path) if path.suffix.lower() in SUFFIXES else ply_content(path)
    return content.fitted_scene(config)


def save_gaussians(gaussians: Gaussians, folder: Path, formats: Sequence[SplatFormat]) -> Path:
    """Write the Gaussians in each format. Returns the path of the first file.

    Args:
        gaussians: The scene.
        folder: Folder of `asset.ply` and `asset_splats.glb`; `asset.glb` is the mesh of a run.
        formats: At least one format.

    Raises:
        ValueError: The scene has no Gaussians, or a parameter is not finite.
    """
    paths = {"ply": folder / "asset.ply", "glb": folder / "asset_splats.glb"}
    writers = {"ply": write_gaussian_ply, "glb": write_gaussian_glb}
    for each in formats:
        writers[each](gaussians, paths[each])
    return paths[formats[0]]
