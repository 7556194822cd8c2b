"""Evaluation of networks in micro-batches, so that memory does not grow with the number of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_micro_batches(
    network: Callable[[Tensor], Tensor], batch: Float[Tensor, "b ..."], size: int
) -> Float[Tensor, "b ..."]:
    """Evaluate `network(batch)` on `size` images at a time; 0: all at once.

    With a size, no activations are saved for the gradient: each micro-batch is recomputed in the backward pass. The
    network must process images separately and draw no random numbers.
    """
    if not size:
        return network(batch)
    portions = batch.split(size)
    if not (torch.is_grad_enabled() and batch.requires_grad):
        return torch.cat([network(portion) for portion in portions])
    return torch.cat([checkpoint(network, each, use_reentrant=False, preserve_rng_state=False) for each in portions])
