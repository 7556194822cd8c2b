"""Evaluation of a prior: denoising error on held-out objects, and its dependence on the camera and the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.world import KINDS

from .dataset import Batch, ViewCache, ViewSettings, draw_batch
from .model import TinyPrior, tokenize

TIMESTEPS = (50, 200, 400, 600, 800, 950)
CONDITION_TIMESTEPS = (800, 950)
"""Timesteps at which only the conditions determine the content of the image."""


@dataclass(frozen=True)
class Examples:
    """Held-out objects over white with their canonical captions; one batch per modality."""

    seen: Mapping[str, Batch]
    """Batches of captions that are in the training set, by modality."""
    held_out: Mapping[str, Batch]
    """Batches of held-out pairs of a kind and a color, by modality; empty if there are none."""

    @classmethod
    def render(cls, settings: ViewSettings, count: int = 128) -> Examples:
        """Render the examples.

        Args:
            settings: Settings of the training views.
            count: Number of views of seen captions; half as many are of held-out pairs. All modalities show the same
                views.
        """
        few = replace(settings, seed=settings.seed + 1, sets_per_caption=1, objects_per_set=1, cameras_per_set=4)
        kinds = tuple(dict.fromkeys(kind for kind, _ in settings.held_out))
        pairs = ((kind, color) for kind in kinds for color in KINDS[kind].colors)
        others = tuple(pair for pair in pairs if pair not in settings.held_out)
        unseen = replace(few, kinds=kinds, held_out=others) if kinds else None
        return cls(_drawn(few, count), _drawn(unseen, count // 2) if unseen else {})


def evaluate(model: TinyPrior, tokenizer: Any, examples: Examples) -> dict[str, dict[str, dict[str, float]]]:
    """Compute the mean squared errors of predicted x0, in [-1, 1], by modality, condition and timestep."""
    return {
        modality: {
            name: {
                str(timestep): round(squared_error(model, tokenizer, batch, timestep), 5)
                for timestep in (TIMESTEPS if name == "right" else CONDITION_TIMESTEPS)
            }
            for name, batch in _conditions(examples, modality).items()
        }
        for modality in examples.seen
    }


@torch.no_grad()
def squared_error(model: TinyPrior, tokenizer: Any, batch: Batch, timestep: int) -> float:
    """Mean squared error of predicted x0 for the first image of each group; the timestep alone determines the noise."""
    device = next(model.parameters()).device
    clean = batch.images[:, 0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(timestep))
    sample = model.schedule.add_noise(clean, noise, torch.full((len(clean),), timestep))
    conditions = tokenize(tokenizer, batch.texts), batch.features(model.features)
    errors: list[Float[Tensor, " b"]] = []
    for noisy, truth, steps, tokens, features in zip(
        *(tensor.to(device).split(32) for tensor in (sample.noisy, clean, sample.timestep, *conditions)), strict=True
    ):
        with torch.autocast(device.type, torch.bfloat16):
            estimate = model(noisy, steps, tokens, features).float()
        errors.append((estimate - truth).square().mean((1, 2, 3)))
    return torch.cat(errors).mean().item()


def _conditions(examples: Examples, modality: str) -> dict[str, Batch]:
    """Return the batch with the correct conditions and batches with wrong ones, by name."""
    seen = examples.seen[modality]
    batches = {"right": seen, "wrong words": _misnamed(seen, seen.texts)}
    batches |= {f"turned by {angle} degrees": _turned(seen, float(angle)) for angle in (90, 180)}
    batches |= {
        f"as {other}": replace(seen, modalities=(other,) * len(seen.texts))
        for other in examples.seen
        if other != modality
    }
    if held_out := examples.held_out.get(modality):
        batches["held-out pairs"] = held_out
        batches["held-out pairs, wrong words"] = _misnamed(held_out, seen.texts)
    return batches


def _drawn(settings: ViewSettings, count: int) -> dict[str, Batch]:
    cache = ViewCache.render(settings)
    return {
        modality: draw_batch(cache, count, (settings.seed,), modality=modality, white=1.0, dropped=0.0, varied=False)
        for modality in settings.modalities
    }


def _misnamed(batch: Batch, texts: tuple[str, ...]) -> Batch:
    """Replace each prompt by the next one of `texts` that differs from it."""
    others = [
        next(text for text in texts[i % len(texts) :] + texts if text != own) for i, own in enumerate(batch.texts)
    ]
    return replace(batch, texts=tuple(others))


def _turned(batch: Batch, degrees: float) -> Batch:
    cameras = batch.cameras
    turned = Cameras.orbit(
        cameras.azimuth + degrees,
        cameras.elevation,
        distance=cameras.position.norm(dim=1),
        height=cameras.height,
    )
    return replace(batch, cameras=turned)
