"""The geometry estimator of the depth and normal control variates: the shipped model or a pretrained one."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import torch
from torch import nn

from steindreamer import assets
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.tiny_estimator import load_tiny_estimator
from steindreamer.distill.geometry.transformers_depth import Predicts

from .errors import UserError

SHIPPED = "tiny"
FOLDER = "tiny_geometry_estimator"


@dataclass
class EstimatorConfig:
    """The estimator of depth and normals; loaded only if a control variate or a regularizer asks for it.

    It always runs in float32, because Stein's identity needs the gradient of exactly the function that is evaluated.
    """

    model: str = SHIPPED
    """The model: `tiny` (shipped), a hub id (owner/name, or owner/name@revision), or a folder with config.json and
    safetensors."""
    predicts: Predicts = "auto"
    """Output of a pretrained depth model: `disparity`, `depth`, or `auto` to read it from the model's configuration."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ValueError(f"model is empty; give {SHIPPED}, a hub id or a folder")


def load_estimator(config: EstimatorConfig, device: torch.device) -> nn.Module:
    """Load a `GeometryEstimator`. Raises UserError if its files are missing, damaged or of an unknown kind."""
    return (_load_shipped() if config.model == SHIPPED else _load_chosen(config)).to(device)


def _load_shipped() -> nn.Module:
    folder = resources.files(assets).joinpath(FOLDER)
    try:
        return load_tiny_estimator(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the geometry estimator in {folder} cannot be loaded ({error}): reinstall steindreamer, "
            'or choose a method without one, such as method.control_variates.terms=["spectral"]'
        ) from error


def _load_chosen(config: EstimatorConfig) -> nn.Module:
    try:
        return load_monocular_estimator(config.model, config.predicts)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"estimator.model={config.model}: {' '.join(str(error).split())}") from error
