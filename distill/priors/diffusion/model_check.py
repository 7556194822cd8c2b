"""A small call of the denoiser that checks whether a model's parts fit together and its output is finite."""

from __future__ import annotations

from typing import Any

import torch

from ...third_party.errors import foreign_errors
from ..base import NoiseRequest


class StandInCameras:
    """Cameras halfway between front and side, for which the view-dependent prompt has the most words."""

    def __init__(self, views: int, size: int) -> None:
        pose = torch.eye(4)
        pose[2, 3] = -3.0  # three units from the origin, looking at it
        focal, middle = float(size), size / 2
        self.camera_to_world = pose.expand(views, 4, 4)
        self.intrinsics = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]]).expand(views, 3, 3)
        self.azimuth = torch.full((views,), 45.0)
        self.elevation = torch.zeros(views)
        self.height = self.width = size


def rehearse(prior: Any, embedding: Any) -> None:
    """Predict the noise of one view of a `ViewEmbedding` with a `DiffusersPrior`, at the smallest size that it takes.

    Raises ValueError, naming the model, if its parts do not fit together, or its output is not finite.
    """
    prior.denoiser  # noqa: B018 - loaded here if it was not yet, and what is wrong with it said in its own words
    size, generator = prior.family.multiple, torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, prior.channels, size, size, generator=generator).to(prior.device)
    half_way = torch.tensor([prior.schedule.steps // 2], device=prior.device)
    sample = prior.schedule.add_noise(clean, noise, half_way)
    # Compiling for a size that the run does not use is not worthwhile.
    with foreign_errors(f"the parts of {prior.label} do not fit together"), torch.compiler.set_stance("force_eager"):
        cameras = StandInCameras(1, size * prior.reduction)
        condition = prior.condition(embedding, cameras, torch.ones(1, 3), prior.modalities[0])
        predicted = prior.predict_noise([NoiseRequest(sample), NoiseRequest(sample, "negative")], condition)
    if not all(bool(torch.isfinite(row).all()) for row in predicted):
        raise ValueError(
            f"{prior.label} returns values that are not finite; set prior.precision=bfloat16 or float32, or download "
            "the model again"
        )
