"""Gaussians as the binary .ply file that splat viewers and engines read (the layout of Kerbl et al. 2023).

One row of little-endian float32 per Gaussian: position, a normal nobody reads, spherical harmonics of degree 0, opacity
logit, log scales, quaternion w, x, y, z. Positions are written as they are (+Y up); many viewers expect +Y down, as in
photogrammetry, and offer to turn the scene.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .gaussians import Gaussians, GaussiansConfig, logit

SH_DEGREE_0 = 0.5 / np.sqrt(np.pi)
"""The constant spherical harmonic: colour = 0.5 + SH_DEGREE_0 * f_dc."""
GROUPS = {
    "means": ("x", "y", "z"),
    "normals": ("nx", "ny", "nz"),
    "harmonics": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quaternions": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
MAXIMUM_HEADER = 65536
TYPES = {"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1"}


def write_gaussian_ply(gaussians: Gaussians, path: Path) -> None:
    """Raises ValueError if there is nothing to write or a parameter is not finite."""
    quaternions = torch.nn.functional.normalize(gaussians.quaternions, dim=-1)
    columns = {
        "means": gaussians.means,
        "normals": torch.zeros_like(gaussians.means),
        "harmonics": (gaussians.colours - 0.5) / SH_DEGREE_0,
        "opacity": gaussians.opacity_logits[:, None],
        "log_scales": gaussians.log_scales,
        "quaternions": quaternions,
    }
    rows = torch.cat([columns[name] for name in GROUPS], 1).detach().cpu().numpy().astype("<f4")
    if len(rows) == 0:
        raise ValueError(f"there are no Gaussians to write to {path}")
    if not np.isfinite(rows).all():
        raise ValueError(f"refusing to write {path}: the scene holds NaN or infinite values; did the run diverge?")
    names = [name for group in GROUPS.values() for name in group]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in names]
    header += ["end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: a reader never sees half of it.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes("\n".join(header).encode("ascii") + rows.tobytes())
    partial.replace(path)


def read_gaussian_ply(path: Path, config: GaussiansConfig | None = None) -> Gaussians:
    """Colours are those of spherical harmonics degree 0, clipped to [0, 1]; higher degrees are ignored.

    Raises OSError if there is no such file, ValueError for anything but a complete binary little-endian 3DGS file with
    finite values.
    """
    data = path.read_bytes()
    count, layout, start = _parse_header(data, path)
    expected = start + count * layout.itemsize
    if len(data) < expected:
        raise ValueError(f"{path} is truncated: {count} Gaussians need {expected} bytes, the file has {len(data)}")
    table = np.frombuffer(data, layout, count, start)

    def column(group: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([table[name].astype(np.float32) for name in GROUPS[group]], 1))

    columns = {name: column(name) for name in GROUPS if name != "normals"}
    for name, values in columns.items():
        if not bool(values.isfinite().all()):
            raise ValueError(f"{path} holds NaN or infinite values in {', '.join(GROUPS[name])}")
    if bool((columns["quaternions"].norm(dim=1) < 1e-6).any()):
        raise ValueError(f"{path} holds a quaternion (rot_0 to rot_3) of length zero")
    colours = (0.5 + float(SH_DEGREE_0) * columns["harmonics"]).clamp(0, 1)
    return Gaussians(
        columns["means"],
        columns["log_scales"],
        columns["quaternions"],
        columns["opacity"][:, 0],
        logit(colours),
        config,
    )


def _parse_header(data: bytes, path: Path) -> tuple[int, np.dtype, int]:
    """Number of Gaussians, layout of a row, and where the rows start."""
    head, end, _ = data[:MAXIMUM_HEADER].partition(b"end_header\n")
    # Windows line ends inside the header are common; the payload starts after the line feed either way.
    if not end:
        head, end, _ = data[:MAXIMUM_HEADER].partition(b"end_header\r\n")
    lines = [line.split() for line in head.decode("ascii", "replace").splitlines()]
    if not end or not lines or lines[0] != ["ply"]:
        raise ValueError(f"{path} is not a .ply file: it must begin with the line 'ply' and have a header")
    formats = [line[1:] for line in lines if line[:1] == ["format"]]
    if formats != [["binary_little_endian", "1.0"]]:
        raise ValueError(f"{path}: only 'format binary_little_endian 1.0' can be read, got {formats}")
    elements = [line for line in lines if line[:1] == ["element"]]
    if (
        [element[1:2] for element in elements] != [["vertex"]]
        or len(elements[0]) != 3
        or not elements[0][2].isdecimal()
    ):
        raise ValueError(f"{path}: exactly one element, 'element vertex COUNT', can be read, got {elements}")
    properties = [line[1:] for line in lines if line[:1] == ["property"]]
    if not all(len(line) == 2 and line[0] in TYPES for line in properties):
        raise ValueError(f"{path}: properties must be one of {sorted(TYPES)} and have a name, got {properties}")
    names = [name for _, name in properties]
    missing = [name for group in GROUPS if group != "normals" for name in GROUPS[group] if name not in names]
    if missing or len(set(names)) != len(names):
        raise ValueError(f"{path} is not a Gaussian splat file: missing {missing}, properties {names}")
    count = int(elements[0][2])
    if count == 0:
        raise ValueError(f"{path} holds no Gaussians")
    return count, np.dtype([(name, TYPES[kind]) for kind, name in properties]), len(head) + len(end)
