"""Estimate of the memory of a run with a `DiffusersPrior`.

The calls of a step run on the device "meta", where shapes are propagated and no values are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...noise.schedule import NoisySample
from ...third_party.errors import foreign_errors
from ..base import NoiseRequest, Prompt
from .libraries import import_libraries
from .live_bytes import LiveBytes, counted, weight_bytes
from .model_check import StandInCameras
from .prior import DiffusersPrior, ViewEmbedding

_META = torch.device("meta")


@dataclass(frozen=True)
class MemoryEstimate:
    """A memory estimate in bytes. It does not include the scene and its rendering, geometry estimators, workspaces of
    convolutions, fragmentation of the allocator, and CUDA's own memory.
    """

    weights: Mapping[str, int]
    """Bytes of the weights of the prior's parts, by name."""
    text_encoders: int
    """Bytes of the weights of all text encoders, which are freed before the denoiser is loaded."""
    kept: int
    """Bytes that `encode` saves for the backward pass."""
    encode: int
    """Peak during `encode` in a step, without the weights; the fields for later parts of the step include `kept`."""
    predict: int
    decode: int
    """Peak during `decode` with its gradient; 0 unless decoded images are used."""
    backward: int

    @property
    def step(self) -> int:
        """Peak of a step, with the weights."""
        return sum(self.weights.values()) + max(self.encode, self.predict, self.decode, self.backward)


def estimate_memory(
    prior: DiffusersPrior, embedding: ViewEmbedding, views: int, *, prompts: Sequence[Prompt], decodes: bool
) -> MemoryEstimate:
    """Estimate the memory of a run with the given number of views per step, micro-batches and checkpointing included.

    Args:
        prompts: prompts of the requests that the denoiser gets together.
        decodes: whether `decode` is differentiated, as geometry baselines do.
    """
    meta = prior.on_meta()
    size = prior.image_size
    # Perp-Neg has the most negative prompts for views between front and side.
    rows = ViewEmbedding(*(each.to(_META, torch.float32) for each in (embedding.views, embedding.negative)))
    condition = meta.condition(rows, StandInCameras(views, size), torch.zeros(views, 3), prior.modalities[0])
    image = torch.empty(views, 3, size, size, device="meta", requires_grad=True)
    with counted() as live:
        encoded, encode = _peak(live, lambda: meta.encode(image))
        kept = live.now
        sample = _noisy(encoded.detach())
        requests = [NoiseRequest(sample, prompt) for prompt in prompts]
        predict = _peak(live, lambda: meta.predict_noise(requests, condition))[1]
        decode = _peak(live, lambda: _differentiate(meta.decode, sample.noisy))[1] if decodes else 0
        backward = _peak(live, lambda: encoded.backward(sample.noise))[1]
    weights = {name: weight_bytes(part) for name, part in prior.parts.items()}
    return MemoryEstimate(weights, text_encoder_bytes(prior), kept, encode, predict, decode, backward)


def text_encoder_bytes(prior: DiffusersPrior) -> int:
    """Bytes of the weights of all text encoders, from their configurations."""
    _, transformers = import_libraries()
    total = 0
    for folder, encoder in prior.family.text_encoders.items():
        if folder not in prior._files.variants:
            continue  # an optional text encoder
        model: Any = getattr(transformers, encoder.model)
        where = prior._files.folder / folder
        with foreign_errors(f"{where} does not describe a {encoder.model}"), _META:
            made = model(model.config_class.from_pretrained(where)).to(prior._dtype if encoder.half else torch.float32)
        total += weight_bytes(made)
    return total


def _peak(live: LiveBytes, run: Callable[[], Any]) -> tuple[Any, int]:
    """The result of a computation, and the peak of live bytes during it."""
    live.peak = live.now
    result = run()
    return result, live.peak


def _noisy(clean: Float[Tensor, "b c h w"]) -> NoisySample:
    level = clean.new_empty(len(clean), 1, 1, 1)
    timestep = torch.empty(len(clean), dtype=torch.int64, device=clean.device)
    return NoisySample(clean, torch.empty_like(clean), timestep, level, level)


def _differentiate(decode: Callable[[Tensor], Tensor], latent: Float[Tensor, "b c h w"]) -> None:
    image = decode(latent.detach().requires_grad_())
    image.backward(torch.empty_like(image))
