"""Reading of the file to finish: a mesh, or the asset of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from steindreamer.representations import Placement
from steindreamer.representations.gaussians.file import is_splat_file
from steindreamer.representations.mesh.file import FORMATS, read_fitted_mesh
from steindreamer.representations.mesh.painted import PaintedMesh

from ..errors import UserError
from .config import FinishConfig
from .splats import read_splats

RUN_ASSET = Path("asset") / "asset.glb"
"""The exported file in the folder of a run."""


@dataclass(frozen=True)
class Source:
    """The surface to finish, fitted into the unit ball."""

    path: Path
    """The mesh file."""
    mesh: PaintedMesh
    """Its triangles with their materials."""
    placement: Placement
    """The transform from the file to the unit ball."""

    def largest_texture(self) -> int:
        """Side in pixels of the largest color texture; 0 without textures."""
        return max((max(paint.texture.texels.shape[:2]) for paint in self.mesh.paints if paint.texture), default=0)

    def texture_size(self) -> int:
        """The power of two from which a square texture has the texels of all color textures; 0 without textures."""
        textures = {id(paint.texture): paint.texture.texels for paint in self.mesh.paints if paint.texture}
        texels = sum(texture.shape[0] * texture.shape[1] for texture in textures.values())
        return 1 << math.ceil(math.log2(texels) / 2) if texels else 0


def source_file(path: Path) -> Path:
    """The mesh file at a path, or in the folder of a run.

    Raises UserError if there is none, or if its format is not supported.
    """
    if path.is_dir():
        if not (path / RUN_ASSET).is_file():
            raise UserError(
                f"{path} is a folder without {RUN_ASSET}; give a mesh file, or the folder of a finished run"
            )
        return path / RUN_ASSET
    if not path.exists():
        raise UserError(f"there is no file {path}; give a mesh file ({', '.join(FORMATS)}) or the folder of a run")
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"cannot read {path.name} as a mesh; supported formats: {', '.join(FORMATS)}")
    return path


def read_source(path: Path, config: FinishConfig) -> Source:
    """Read a mesh file, or the surface of a splat file. Raises UserError if it cannot be read.

    Args:
        path: the file, see `source_file`.
        config: the rotation, and the settings of the surface of splats.
    """
    try:
        if is_splat_file(path):
            if config.keep:
                raise UserError(f"{path.name} has Gaussians and no triangles to keep; leave out --keep")
            mesh, placement = read_splats(path, config)
        else:
            mesh, placement = read_fitted_mesh(path, config.yaw, maps=True)
    except (ValueError, OSError) as error:
        raise UserError(error) from error
    return Source(path, mesh, placement)
