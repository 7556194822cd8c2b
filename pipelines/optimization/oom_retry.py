"""Retries a step that runs out of memory with half as many views per call of the prior."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from steindreamer.distill import Prior
from steindreamer.distill.priors.base import MicroBatched

from ..errors import UserError
from .out_of_memory import is_out_of_memory

Result = TypeVar("Result")


def retry_with_smaller_micro_batch(
    attempt: Callable[[], Result], prior: Prior, views: int, snapshot: Callable[[], Callable[[], None]]
) -> tuple[Result, list[str]]:
    """The result of the first attempt that fits into memory, and a line about each failed attempt.

    Args:
        attempt: the part of a step that calls the prior.
        prior: its `micro_batch` is halved after every attempt that does not fit, permanently.
        views: number of views in a step: an attempt without micro-batches takes all of them at once.
        snapshot: saves the state that `attempt` changes, and returns a function that restores it.

    Raises UserError if not even one view at a time fits, and any other exception of `attempt`.
    """
    can_retry = isinstance(prior, MicroBatched) and prior.micro_batch != 1
    restore = snapshot() if can_retry else None
    notes: list[str] = []
    while True:
        try:
            return attempt(), notes
        except (RuntimeError, MemoryError, OSError, ValueError) as error:
            if not is_out_of_memory(error):
                raise
        # The exception held the images that did not fit; it is released before the next attempt.
        notes.append(halve_micro_batch(prior, views))
        if restore is not None:
            restore()


def halve_micro_batch(prior: Prior, views: int) -> str:
    """Halve the number of views per call of the prior; returns a line that says so.

    Raises UserError, naming other settings to lower, if the prior takes views one by one already or has no
    micro-batches.
    """
    if not isinstance(prior, MicroBatched):
        raise UserError("out of memory; lower the stages' resolution, views.per_step or the size of the scene")
    if prior.micro_batch == 1:
        raise UserError(
            "out of memory with one view at a time; lower the stages' resolution, views.per_step or "
            "prior.image_size, set prior.gradient_checkpointing=true, prior.precision=bfloat16 or, for the baselines "
            "depth and normal, a small prior.decoder; or choose a smaller model"
        )
    prior.micro_batch = max(1, min(prior.micro_batch or views, views) // 2)
    gc.collect()  # frees reference cycles of the failed graph that hooks hold
    if prior.device.type == "cuda":
        torch.cuda.empty_cache()  # frees fragmented memory
    return f"out of memory: retrying with prior.micro_batch={prior.micro_batch}, which is kept from now on"
