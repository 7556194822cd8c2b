"""Reading and writing of Gaussians as the .ply file of splat viewers and engines (the layout of Kerbl et al. 2023).

One row per Gaussian: position, an unused normal, spherical harmonics, opacity logit, log scales, quaternion w, x, y, z.
Written as little-endian float32; read in every encoding, type and order that PLY allows. Positions are written
unchanged (+Y up); many viewers expect +Y down, as in photogrammetry, and have an option to rotate the scene.

A scene has the harmonics of degree 0, the view-independent color. Those of degrees 1 to 3, the view-dependent part, are
ignored on reading, which is logged, and not written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from steindreamer.atomic_file import write_atomically

from ..files.ply import read_ply_element
from .ellipsoids import Ellipsoids
from .gaussians import Gaussians, GaussiansConfig
from .splat_table import SH_DEGREE_0, THINNEST_LOG_SCALE, SplatTable, checked, is_distant, unit_quaternions

GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "harmonics": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quaternions": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
HIGHER_HARMONICS = {0: 0, 9: 1, 24: 2, 45: 3}
"""Degree of the spherical harmonics, by the number of f_rest properties."""


def write_gaussian_ply(gaussians: Gaussians, path: Path) -> None:
    """Write the Gaussians as a 3DGS .ply, atomically.

    If the scene has a `placement`, its inverse is applied, so that positions are in coordinates of the initial file.

    Raises:
        ValueError: The scene has no Gaussians, or a parameter is not finite.

    Example:
        >>> from pathlib import Path
        >>> from steindreamer.representations import GaussiansConfig, write_gaussian_ply
        >>> scene = GaussiansConfig(count=100).build(torch.Generator().manual_seed(0))
        >>> write_gaussian_ply(scene, Path("scene.ply"))
    """
    content = SplatTable.of(gaussians, path)
    columns = {
        "means": content.shapes.means,
        "normals": torch.zeros_like(content.shapes.means),
        "harmonics": (content.colors - 0.5) / SH_DEGREE_0,
        "opacity": content.opacity_logits[:, None],
        "log_scales": content.shapes.log_scales,
        "quaternions": content.shapes.quaternions,
    }
    kinds = {name: "float" for group in GROUPS.values() for name in group}
    if is_distant(gaussians, content.shapes):
        kinds |= dict.fromkeys(GROUPS["means"], "double")
    table = np.empty(len(gaussians), [(name, {"float": "<f4", "double": "<f8"}[kinds[name]]) for name in kinds])
    for group, names in GROUPS.items():
        for name, values in zip(names, columns[group].unbind(1), strict=True):
            table[name] = values.numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [f"property {kind} {name}" for name, kind in kinds.items()]
    header += ["end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "\n".join(header).encode("ascii") + table.tobytes())


def read_gaussian_ply(path: Path, config: GaussiansConfig | None = None) -> Gaussians:
    """Read a 3DGS .ply with positions and scales in the units of the file; `placement` is None.

    Colors are the spherical harmonics of degree 0, clipped to [0, 1]; normals and other properties are ignored, and so
    are higher degrees, which is logged. An infinite opacity logit means an opacity of 0 or 1, a scale of 0 a flat
    Gaussian, and a zero quaternion no rotation.

    Args:
        path: The file.
        config: Settings of the scene; None for the defaults.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a complete 3DGS file.

    Example:
        >>> scene = read_gaussian_ply(Path("asset.ply"))  # doctest: +SKIP
    """
    return ply_content(path).scene(config)


def ply_content(path: Path) -> SplatTable:
    """The content of a 3DGS .ply; raises the errors of `read_gaussian_ply`."""
    table = read_ply_element(path, "vertex")
    try:
        degree = _degree(table.dtype.names or ())
        log_scales = _column(table, "log_scales", infinite=True)
        if bool((log_scales == np.inf).any()):
            raise ValueError(f"it has infinite scales in {', '.join(GROUPS['log_scales'])}")
        shapes = Ellipsoids(
            _column(table, "means"),
            log_scales.clamp_min(THINNEST_LOG_SCALE),
            unit_quaternions(_column(table, "quaternions")),
        )
        colors = 0.5 + SH_DEGREE_0 * _column(table, "harmonics")
        return SplatTable(path, shapes, _column(table, "opacity", infinite=True)[:, 0], colors, degree)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _degree(names: tuple[str, ...]) -> int:
    """Degree of the spherical harmonics. Raises ValueError unless there are the properties of a 3DGS file."""
    missing = [name for group in GROUPS if group != "normals" for name in GROUPS[group] if name not in names]
    if missing:
        packed = " but a compressed one: save it uncompressed" if "packed_position" in names else ""
        raise ValueError(
            f"not a Gaussian splat file{packed}; missing: {', '.join(missing)}; its properties: "
            f"{', '.join(names)[:200]}"
        )
    rest = {name for name in names if name.startswith("f_rest_")}
    if len(rest) not in HIGHER_HARMONICS or rest != {f"f_rest_{index}" for index in range(len(rest))}:
        accepted = ", ".join(f"{count} (degree {degree})" for count, degree in HIGHER_HARMONICS.items())
        raise ValueError(
            f"it has {len(rest)} properties f_rest_* of spherical harmonics; accepted are consecutive ones from "
            f"f_rest_0, with a number of {accepted}"
        )
    return HIGHER_HARMONICS[len(rest)]


def _column(table: np.ndarray, group: str, *, infinite: bool = False) -> Float64[Tensor, "n c"]:
    """The columns of a group of properties, which are checked with `splat_table.checked`."""
    values = torch.from_numpy(np.stack([table[name].astype(np.float64) for name in GROUPS[group]], 1))
    return checked(values, GROUPS[group], infinite=infinite)
