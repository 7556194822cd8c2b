"""How well a prior denoises what it has not seen, and whether it listens to its camera and its words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...distill.schedule import NoiseSchedule
from ...representations import Cameras
from ..world import KINDS
from .dataset import Batch, ViewCache, ViewSettings, draw_batch
from .model import TinyPrior, tokenize

TIMESTEPS = (50, 200, 400, 600, 800, 950)
CONDITION_TIMESTEPS = (800, 950)
"""Where only the conditions can tell what is in the picture."""


@dataclass(frozen=True)
class Examples:
    """Objects that training has not seen, over white, with their canonical captions."""

    seen: Batch
    """Of captions that training has seen."""
    held_out: Batch | None
    """Of pairs of a kind and a colour that it has not."""

    @classmethod
    def render(cls, settings: ViewSettings, count: int = 160) -> Examples:
        """`count` views of seen captions, half as many of the pairs held out."""
        few = replace(settings, seed=settings.seed + 1, sets_per_caption=1, objects_per_set=1, cameras_per_set=4)
        kinds = tuple(dict.fromkeys(kind for kind, _ in settings.held_out))
        pairs = ((kind, colour) for kind in kinds for colour in KINDS[kind].colours)
        others = tuple(pair for pair in pairs if pair not in settings.held_out)
        unseen = replace(few, kinds=kinds, held_out=others) if kinds else None
        return cls(_drawn(few, count), _drawn(unseen, count // 2) if unseen else None)


def evaluate(model: TinyPrior, tokenizer: Any, examples: Examples) -> dict[str, dict[str, float]]:
    """Mean squared errors of the estimated clean pictures, in [-1, 1], by condition and by timestep."""
    seen, held_out = examples.seen, examples.held_out
    wrong_words = _misnamed(seen, seen.texts)
    batches = {"right": seen, "wrong words": wrong_words}
    batches |= {f"turned by {angle} degrees": _turned(seen, float(angle)) for angle in (90, 180)}
    if held_out is not None:
        batches["held-out pairs"] = held_out
        batches["held-out pairs, wrong words"] = _misnamed(held_out, seen.texts)
    return {
        name: {
            str(timestep): round(squared_error(model, tokenizer, batch, timestep), 5)
            for timestep in (TIMESTEPS if name == "right" else CONDITION_TIMESTEPS)
        }
        for name, batch in batches.items()
    }


@torch.no_grad()
def squared_error(model: TinyPrior, tokenizer: Any, batch: Batch, timestep: int) -> float:
    """Of the first picture of each group under noise that depends on the timestep alone."""
    device = next(model.parameters()).device
    clean = batch.pictures[:, 0]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(timestep))
    sample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.full((len(clean),), timestep))
    conditions = tokenize(tokenizer, batch.texts), batch.features
    errors: list[Float[Tensor, " b"]] = []
    for noisy, truth, steps, tokens, features in zip(
        *(tensor.to(device).split(32) for tensor in (sample.noisy, clean, sample.timestep, *conditions)), strict=True
    ):
        with torch.autocast(device.type, torch.bfloat16):
            estimate = model(noisy, steps, tokens, features).float()
        errors.append((estimate - truth).square().mean((1, 2, 3)))
    return torch.cat(errors).mean().item()


def _drawn(settings: ViewSettings, count: int) -> Batch:
    return draw_batch(ViewCache.render(settings), count, (settings.seed,), white=1.0, dropped=0.0, varied=False)


def _misnamed(batch: Batch, texts: tuple[str, ...]) -> Batch:
    """Each with the next of `texts` that is not its own."""
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
