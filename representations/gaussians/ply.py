"""Reading and writing of Gaussians as the .ply file of splat viewers and engines (the layout of Kerbl et al. 2023).

One row per Gaussian: position, an unused normal, spherical harmonics, opacity logit, log scales, quaternion w, x, y, z.
Written as little-endian float32; read in every encoding, type and order that PLY allows. Positions are written
unchanged (+Y up); many viewers expect +Y down, as in photogrammetry, and have an option to rotate the scene.

A scene has the harmonics of degree 0, the view-independent color. Those of degrees 1 to 3, the view-dependent part, are
ignored on reading and not written.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from steindreamer.atomic_file import write_atomically

from ..files.ply import read_ply_element
from ..ops import logit
from .ellipsoids import Ellipsoids
from .gaussians import Gaussians, GaussiansConfig
from .splatting import MIN_ALPHA

SH_DEGREE_0 = 0.5 / np.sqrt(np.pi)
"""Value of the constant spherical harmonic: color = 0.5 + SH_DEGREE_0 * f_dc."""
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
LARGEST_LOGIT = 15.0
"""Bound on the absolute opacity logit: opacities closer than 3e-7 to 0 or 1 (also exactly 0 or 1) are clamped, which is
invisible and keeps them trainable."""
THINNEST_LOG_SCALE = -30.0
"""Lower bound on log scales, in the file's units; flat Gaussians have a scale of 0 in files."""
SMALLEST_SCALE = 1e-7
"""Lower bound on the standard deviation in the unit ball, in meters; division by a smaller one would overflow."""
_PRECISION = 1e-5
"""Precision of positions in the file, as a fraction of the size of the scene."""


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
    shapes = Ellipsoids(
        gaussians.means.detach().cpu().double(),
        gaussians.log_scales.detach().cpu().double(),
        torch.nn.functional.normalize(gaussians.quaternions.detach().cpu().double(), dim=-1),
    )
    placement = gaussians.placement
    if placement is not None:
        shapes = shapes.undo(placement)
    columns = {
        "means": shapes.means,
        "normals": torch.zeros_like(shapes.means),
        "harmonics": (gaussians.colors.detach().cpu() - 0.5) / SH_DEGREE_0,
        "opacity": gaussians.opacity_logits.detach().cpu()[:, None],
        "log_scales": shapes.log_scales,
        "quaternions": shapes.quaternions,
    }
    if len(shapes.means) == 0:
        raise ValueError(f"there are no Gaussians to write to {path}")
    if not all(bool(values.isfinite().all()) for values in columns.values()):
        raise ValueError(f"cannot write {path}: the scene has NaN or infinite values; did the run diverge?")
    kinds = {name: "float" for group in GROUPS.values() for name in group}
    if placement is not None and np.spacing(np.float32(shapes.means.abs().max())) > _PRECISION * placement.scale:
        # Maps may have a distant origin, for which neighbors would coincide in single precision.
        kinds |= dict.fromkeys(GROUPS["means"], "double")
    table = np.empty(len(shapes.means), [(name, {"float": "<f4", "double": "<f8"}[kinds[name]]) for name in kinds])
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

    Colors are the spherical harmonics of degree 0, clipped to [0, 1]; higher degrees, normals and other properties are
    ignored. An infinite opacity logit means an opacity of 0 or 1, a scale of 0 a flat Gaussian, and a zero quaternion
    no rotation.

    Args:
        path: The file.
        config: Settings of the scene; None for the defaults.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a complete 3DGS file.

    Example:
        >>> scene = read_gaussian_ply(Path("asset.ply"))  # doctest: +SKIP
    """
    table = _table(path)
    return _gaussians(_shapes(table, path), table, path, config)


def fit_gaussian_ply(path: Path, config: GaussiansConfig) -> Gaussians:
    """Read a 3DGS .ply, fitted into the unit ball and rotated by `config.initial_yaw`; sets `placement`.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is not a complete 3DGS file, all Gaussians are invisible, or outliers make the scene
            mostly empty space.
    """
    table = _table(path)
    shapes = _shapes(table, path)
    try:
        placement = shapes.fit(config.initial_yaw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    shapes = shapes.apply(placement)
    scales = shapes.log_scales.clamp_min(float(np.log(SMALLEST_SCALE)))
    gaussians = _gaussians(Ellipsoids(shapes.means, scales, shapes.quaternions), table, path, config)
    gaussians.placement = placement
    if float(gaussians.opacities.detach().max()) < MIN_ALPHA:
        raise ValueError(f"{path}: all its Gaussians are invisible, with opacities below {MIN_ALPHA:.4f}")
    return gaussians


def _gaussians(shapes: Ellipsoids, table: np.ndarray, path: Path, config: GaussiansConfig | None) -> Gaussians:
    colors = 0.5 + float(SH_DEGREE_0) * _column(table, "harmonics", path)
    opacities = _column(table, "opacity", path, infinite=True)[:, 0]
    return Gaussians(
        _single(shapes.means, path),
        _single(shapes.log_scales, path),
        shapes.quaternions.float(),
        opacities.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).float(),
        logit(colors.clamp(0, 1).float()),
        config,
    )


def _shapes(table: np.ndarray, path: Path) -> Ellipsoids:
    quaternions = _column(table, "quaternions", path)
    length = quaternions.norm(dim=1, keepdim=True)
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    log_scales = _column(table, "log_scales", path, infinite=True)
    if bool((log_scales == np.inf).any()):
        raise ValueError(f"{path} has infinite scales in {', '.join(GROUPS['log_scales'])}")
    return Ellipsoids(
        _column(table, "means", path),
        log_scales.clamp_min(THINNEST_LOG_SCALE),
        torch.where(length > 0, quaternions / length, upright),
    )


def _table(path: Path) -> np.ndarray:
    """The rows of the file. Raises ValueError unless they have the properties of a 3DGS file."""
    table = read_ply_element(path, "vertex")
    names = table.dtype.names or ()
    missing = [name for group in GROUPS if group != "normals" for name in GROUPS[group] if name not in names]
    if missing:
        packed = " but a compressed one: save it uncompressed" if "packed_position" in names else ""
        raise ValueError(
            f"{path} is not a Gaussian splat file{packed}; missing: {', '.join(missing)}; "
            f"its properties: {', '.join(names)[:200]}"
        )
    rest = {name for name in names if name.startswith("f_rest_")}
    if len(rest) not in HIGHER_HARMONICS or rest != {f"f_rest_{index}" for index in range(len(rest))}:
        accepted = ", ".join(f"{count} (degree {degree})" for count, degree in HIGHER_HARMONICS.items())
        raise ValueError(
            f"{path} has {len(rest)} properties f_rest_* of spherical harmonics; accepted are consecutive ones from "
            f"f_rest_0, with a number of {accepted}"
        )
    return table


def _column(table: np.ndarray, group: str, path: Path, *, infinite: bool = False) -> Float64[Tensor, "n c"]:
    """The columns of a group of properties. Raises ValueError for NaN, and for infinity unless `infinite` is set."""
    values = torch.from_numpy(np.stack([table[name].astype(np.float64) for name in GROUPS[group]], 1))
    bad = values.isnan() if infinite else ~values.isfinite()
    if bool(bad.any()):
        row, which = (int(index) for index in bad.nonzero()[0])
        raise ValueError(
            f"{path} has NaN or infinite values in {', '.join(GROUPS[group])}: {int(bad.any(1).sum())} of "
            f"{len(table)} rows, the first is row {row} with {GROUPS[group][which]} = {float(values[row, which])}"
        )
    return values


def _single(values: Float64[Tensor, "n 3"], path: Path) -> Tensor:
    """Convert to float32. Raises ValueError for values that overflow."""
    if not bool(values.float().isfinite().all()):
        raise ValueError(f"{path} has numbers that are too large for single precision")
    return values.float()
