"""What to do about a step for which the memory of the device was not enough."""

from __future__ import annotations

import gc

import torch

from ..distill import MicroBatched, Prior
from .errors import UserError


def halve_micro_batch(prior: Prior, views: int) -> str:
    """Let the prior take half as many views at a time, and tell so; the next attempt may then fit.

    Raises UserError, naming what else can be lowered, if it takes them one by one already, or knows no portions.
    """
    if not isinstance(prior, MicroBatched):
        raise UserError("out of memory; lower the stages' resolution, views.per_step or the size of the scene")
    if prior.micro_batch == 1:
        raise UserError(
            "out of memory with one view at a time; lower the stages' resolution, views.per_step or "
            "prior.picture_size, set prior.gradient_checkpointing=true, prior.precision=bfloat16 or, for the baselines "
            "depth and normal, a small prior.decoder; or choose a smaller model"
        )
    prior.micro_batch = max(1, min(prior.micro_batch or views, views) // 2)
    gc.collect()  # of the graph that did not fit, what hooks hold in cycles
    if prior.device.type == "cuda":
        torch.cuda.empty_cache()  # what is free in pieces
    return f"out of memory: once more with prior.micro_batch={prior.micro_batch}, which stays"
