"""How much memory a run with a `DiffusersPrior` needs, found on the device "meta": shapes go through the very same
calls as in a step, nothing is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..foreign_errors import foreign_errors
from ..schedule import NoisySample
from .libraries import import_libraries
from .live_bytes import LiveBytes, counted, weight_bytes
from .prior import DiffusersPrior, ViewEmbedding
from .rehearsal import StandInCameras

_META = torch.device("meta")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes. What is not in it: the scene and its drawing, geometry estimators, workspaces of convolutions, what the
    allocator holds in pieces, and CUDA's own."""

    weights: Mapping[str, int]
    """Of the prior's parts, by name."""
    text_encoders: int
    """Of all of them together; they live before the denoiser is loaded."""
    kept: int
    """What `encode` keeps for the backward pass."""
    encode: int
    """The most that is alive during each part of a step, beside the weights; later ones hold `kept` too."""
    predict: int
    decode: int
    """With its gradient; 0 unless something looks at decoded pictures."""
    backward: int

    @property
    def step(self) -> int:
        """The most of a step, with the weights."""
        return sum(self.weights.values()) + max(self.encode, self.predict, self.decode, self.backward)

    @property
    def embedding(self) -> int:
        """While the prompt is embedded, the denoiser is not there yet."""
        return self.text_encoders + sum(size for name, size in self.weights.items() if name != "denoiser")

    @property
    def total(self) -> int:
        """The most of the run."""
        return max(self.step, self.embedding)


def estimate_memory(
    prior: DiffusersPrior, embedding: ViewEmbedding, views: int, *, unconditional: bool, decodes: bool
) -> MemoryEstimate:
    """Of a step with so many views, with the prior's micro-batches and checkpointing.

    Args:
        unconditional: whether the denoiser is asked with and without the prompt.
        decodes: whether something differentiates through `decode`, as geometry baselines do.
    """
    twin = prior.on_meta()
    size = prior.picture_size
    # Views between front and side have the most negatives of Perp-Neg.
    rows = ViewEmbedding(*(each.to(_META, torch.float32) for each in (embedding.views, embedding.negative)))
    condition = twin.condition(rows, StandInCameras(views, size), torch.zeros(views, 3))
    image = torch.empty(views, 3, size, size, device="meta", requires_grad=True)
    with counted() as live:
        encoded, encode = _peak(live, lambda: twin.encode(image))
        kept = live.now
        sample = _noisy(encoded.detach())
        predict = _peak(live, lambda: twin.predict_noise(sample, condition, unconditional=unconditional))[1]
        decode = _peak(live, lambda: _differentiate(twin.decode, sample.noisy))[1] if decodes else 0
        backward = _peak(live, lambda: encoded.backward(sample.noise))[1]
    weights = {name: weight_bytes(part) for name, part in prior.parts.items()}
    return MemoryEstimate(weights, text_encoder_bytes(prior), kept, encode, predict, decode, backward)


def text_encoder_bytes(prior: DiffusersPrior) -> int:
    """Of the weights of all text encoders, from their configurations."""
    _, transformers = import_libraries()
    total = 0
    for folder, encoder in prior.family.text_encoders.items():
        if folder not in prior._files.variants:
            continue  # an optional one
        model: Any = getattr(transformers, encoder.model)
        where = prior._files.folder / folder
        with foreign_errors(f"{where} does not describe a {encoder.model}"), _META:
            made = model(model.config_class.from_pretrained(where)).to(prior._dtype if encoder.half else torch.float32)
        total += weight_bytes(made)
    return total


def _peak(live: LiveBytes, run: Callable[[], Any]) -> tuple[Any, int]:
    """What it answers, and the most that was alive meanwhile."""
    live.peak = live.now
    answer = run()
    return answer, live.peak


def _noisy(clean: Float[Tensor, "b c h w"]) -> NoisySample:
    level = clean.new_empty(len(clean), 1, 1, 1)
    timestep = torch.empty(len(clean), dtype=torch.int64, device=clean.device)
    return NoisySample(clean, torch.empty_like(clean), timestep, level, level)


def _differentiate(decode: Callable[[Tensor], Tensor], latent: Float[Tensor, "b c h w"]) -> None:
    picture = decode(latent.detach().requires_grad_())
    picture.backward(torch.empty_like(picture))
