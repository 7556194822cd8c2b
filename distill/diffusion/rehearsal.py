"""One small call of the denoiser: whether a model's parts fit together and answer with numbers."""

from __future__ import annotations

from typing import Any

import torch

from ..foreign_errors import foreign_errors


class StandInCameras:
    """Views halfway between front and side, where the prompt has the most words."""

    def __init__(self, views: int, size: int) -> None:
        pose = torch.eye(4)
        pose[2, 3] = -3.0  # three units before the origin, which it looks at
        focal, middle = float(size), size / 2
        self.camera_to_world = pose.expand(views, 4, 4)
        self.intrinsics = torch.tensor([[focal, 0, middle], [0, focal, middle], [0, 0, 1]]).expand(views, 3, 3)
        self.azimuth = torch.full((views,), 45.0)
        self.elevation = torch.zeros(views)
        self.height = self.width = size


def rehearse(prior: Any, embedding: Any) -> None:
    """Ask a `DiffusersPrior` about one view of its `ViewEmbedding`, at the smallest size that it takes.

    Raises ValueError, naming the model, if its parts do not fit together, or it answers with what is not finite.
    """
    prior.denoiser  # noqa: B018 - loaded here if it was not yet, and what is wrong with it said in its own words
    size, generator = prior.family.multiple, torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 1, prior.channels, size, size, generator=generator).to(prior.device)
    half_way = torch.tensor([prior.schedule.steps // 2], device=prior.device)
    sample = prior.schedule.add_noise(clean, noise, half_way)
    # Another size than the run's is not worth compiling for.
    with foreign_errors(f"the parts of {prior.label} do not fit together"), torch.compiler.set_stance("force_eager"):
        condition = prior.condition(embedding, StandInCameras(1, size * prior.reduction), torch.ones(1, 3))
        predicted = prior.predict_noise(sample, condition, unconditional=True)
    if not all(bool(torch.isfinite(row).all()) for row in (predicted.conditional, predicted.unconditional)):
        raise ValueError(
            f"{prior.label} answers with numbers that are not finite; set prior.precision=bfloat16 or float32, or fetch"
            " the model again"
        )
