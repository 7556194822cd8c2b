"""The geometry estimator that ships with the product."""

from __future__ import annotations

from importlib import resources

import torch

from .. import assets
from ..distill.estimator import GeometryEstimator
from ..distill.tiny_estimator import load_tiny_estimator
from .errors import UserError

FOLDER = "tiny_geometry_estimator"


def load_estimator(device: torch.device) -> GeometryEstimator:
    """Raises UserError if the installation lacks the estimator's files or they are damaged."""
    folder = resources.files(assets).joinpath(FOLDER)
    try:
        return load_tiny_estimator(folder).to(device)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the geometry estimator in {folder} cannot be loaded ({error}): install steindreamer again, "
            'or choose a method without one, such as method.baseline=["spectral"]'
        ) from error
