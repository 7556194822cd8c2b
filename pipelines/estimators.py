"""The geometry estimator of the depth and normal baselines: the one that ships, or one of the user's choice."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Annotated

import torch
from torch import nn

from .. import assets
from ..distill.monocular.loading import load_monocular_estimator
from ..distill.monocular.transformers_depth import PREDICTIONS
from ..distill.tiny_estimator import load_tiny_estimator
from .errors import SettingsError, UserError
from .ranges import check_ranges

SHIPPED = "tiny"
FOLDER = "tiny_geometry_estimator"


@dataclass
class EstimatorConfig:
    """Who judges depth and normals; loaded only if a baseline or a penalty asks. Always in float32: Stein's identity
    needs the gradient of the very function that is evaluated."""

    model: str = SHIPPED
    """tiny (shipped), a hub id (owner/name, or owner/name@revision), or a folder with config.json and safetensors."""
    predicts: Annotated[str, PREDICTIONS] = "auto"
    """Of a pretrained depth model: disparity, depth, or auto, what its configuration says."""

    def validate(self) -> None:
        """Raises SettingsError."""
        check_ranges(self, "estimator.")
        if not self.model.strip():
            raise SettingsError(f"estimator.model is empty; give {SHIPPED}, a hub id or a folder")


def load_estimator(config: EstimatorConfig, device: torch.device) -> nn.Module:
    """A `GeometryEstimator`. Raises UserError if its files are missing, damaged or of an unknown kind."""
    return (_load_shipped() if config.model == SHIPPED else _load_chosen(config)).to(device)


def _load_shipped() -> nn.Module:
    folder = resources.files(assets).joinpath(FOLDER)
    try:
        return load_tiny_estimator(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the geometry estimator in {folder} cannot be loaded ({error}): install steindreamer again, "
            'or choose a method without one, such as method.baseline=["spectral"]'
        ) from error


def _load_chosen(config: EstimatorConfig) -> nn.Module:
    try:
        return load_monocular_estimator(config.model, config.predicts)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"estimator.model={config.model}: {' '.join(str(error).split())}") from error
