"""The content of a file of Gaussians, independent of its format, and its conversion from and to a scene."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from ..ops import logit
from .ellipsoids import Ellipsoids
from .gaussians import Gaussians, GaussiansConfig
from .splatting import MIN_ALPHA

SH_DEGREE_0 = float(0.5 / np.sqrt(np.pi))
"""Value of the constant spherical harmonic: color = 0.5 + SH_DEGREE_0 * its coefficient."""
LARGEST_LOGIT = 15.0
"""Bound on the absolute opacity logit: opacities closer than 3e-7 to 0 or 1 (also exactly 0 or 1) are clamped, which is
invisible and keeps them trainable."""
THINNEST_LOG_SCALE = -30.0
"""Lower bound on log scales, in the file's units; flat Gaussians have a scale of 0 in files."""
SMALLEST_SCALE = 1e-7
"""Lower bound on the standard deviation in the unit ball, in meters; division by a smaller one would overflow."""
_PRECISION = 1e-5
"""Precision of positions in the file, as a fraction of the size of the scene."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplatTable:
    """Gaussians in the units of a file, in float64; the colors do not depend on the view direction."""

    path: Path
    """The file, which errors name."""
    shapes: Ellipsoids
    """Centers, log scales and unit quaternions."""
    opacity_logits: Float64[Tensor, " n"]
    """Logits of the opacities."""
    colors: Float64[Tensor, "n 3"]
    """Display sRGB; files may have values outside [0, 1]."""
    degree: int = 0
    """Degree of the spherical harmonics in the file; those above 0 are not part of the table."""

    @classmethod
    def of(cls, gaussians: Gaussians, path: Path) -> SplatTable:
        """The content of a file of a scene, in coordinates of the initial file if the scene has a `placement`.

        Raises:
            ValueError: The scene has no Gaussians, or a parameter is not finite.
        """
        means, log_scales, quaternions, opacity_logits, colors = (
            values.detach().cpu().double()
            for values in (
                gaussians.means,
                gaussians.log_scales,
                gaussians.quaternions,
                gaussians.opacity_logits,
                gaussians.colors,
            )
        )
        shapes = Ellipsoids(means, log_scales, torch.nn.functional.normalize(quaternions, dim=-1))
        if gaussians.placement is not None:
            shapes = shapes.undo(gaussians.placement)
        if len(means) == 0:
            raise ValueError(f"there are no Gaussians to write to {path}")
        written = (shapes.means, shapes.log_scales, shapes.quaternions, opacity_logits, colors)
        if not all(bool(values.isfinite().all()) for values in written):
            raise ValueError(f"cannot write {path}: the scene has NaN or infinite values; did the run diverge?")
        return cls(path, shapes, opacity_logits, colors)

    def scene(self, config: GaussiansConfig | None = None) -> Gaussians:
        """The scene with positions and scales in the units of the file; `placement` is None.

        Colors are clipped to [0, 1], and opacities moved off 0 and 1 by less than 1e-6. A line is logged if the file
        has view-dependent colors.

        Args:
            config: Settings of the scene; None for the defaults.

        Raises:
            ValueError: A value is too large for single precision.
        """
        if self.degree:
            _log.warning(
                f"{self.path}: its view-dependent color is ignored (spherical harmonics of degree 1 to {self.degree})"
            )
        return Gaussians(
            self._single(self.shapes.means),
            self._single(self.shapes.log_scales),
            self.shapes.quaternions.float(),
            self.opacity_logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT).float(),
            logit(self.colors.clamp(0, 1).float()),
            config,
        )

    def fitted_scene(self, config: GaussiansConfig) -> Gaussians:
        """The scene fitted into the unit ball and rotated by `config.initial_yaw`; sets `placement`.

        Raises:
            ValueError: All Gaussians are invisible, or outliers make the scene mostly empty space.
        """
        try:
            placement = self.shapes.fit(config.initial_yaw)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None
        shapes = self.shapes.apply(placement)
        shapes = replace(shapes, log_scales=shapes.log_scales.clamp_min(float(np.log(SMALLEST_SCALE))))
        gaussians = replace(self, shapes=shapes).scene(config)
        gaussians.placement = placement
        if float(gaussians.opacities.detach().max()) < MIN_ALPHA:
            raise ValueError(f"{self.path}: all its Gaussians are invisible, with opacities below {MIN_ALPHA:.4f}")
        return gaussians

    def _single(self, values: Float64[Tensor, "n 3"]) -> Tensor:
        """Convert to float32. Raises ValueError for values that overflow."""
        if not bool(values.float().isfinite().all()):
            raise ValueError(f"{self.path} has numbers that are too large for single precision")
        return values.float()


def is_distant(gaussians: Gaussians, shapes: Ellipsoids) -> bool:
    """Whether the scene is so far from the origin of its file that neighbors would coincide in single precision."""
    if gaussians.placement is None:
        return False
    return bool(np.spacing(np.float32(shapes.means.abs().max())) > _PRECISION * gaussians.placement.scale)


def unit_quaternions(quaternions: Float64[Tensor, "n 4"]) -> Float64[Tensor, "n 4"]:
    """Quaternions w, x, y, z of length 1; one of length 0 does not rotate."""
    length = quaternions.norm(dim=1, keepdim=True)
    upright = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return torch.where(length > 0, quaternions / length, upright)


def checked(values: Float64[Tensor, "n c"], names: Sequence[str], *, infinite: bool = False) -> Float64[Tensor, "n c"]:
    """The values themselves. Raises ValueError for NaN, and for infinity unless `infinite` is set.

    Args:
        values: Columns of a file.
        names: Names of the columns in the file.
        infinite: Whether infinite values are accepted.
    """
    bad = values.isnan() if infinite else ~values.isfinite()
    if bool(bad.any()):
        row, column = (int(index) for index in bad.nonzero()[0])
        raise ValueError(
            f"it has NaN or infinite values in {', '.join(names)}: {int(bad.any(1).sum())} of {len(values)} rows, "
            f"the first is row {row} with {names[column]} = {float(values[row, column])}"
        )
    return values
