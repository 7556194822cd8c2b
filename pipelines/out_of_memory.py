"""Memory that is not enough: how it is told from other errors, and what to do about it."""

from __future__ import annotations

import errno
import gc

import torch

from ..distill import MicroBatched, Prior
from .errors import UserError

ADVICE = (
    "out of memory; lower the stages' resolution, mesh.resolution, export.resolution, output.picture_size or the size "
    "of the scene"
)

_SIGNS = (
    # torch, on the CPU: no class of its own. Linux and macOS, Windows, sizes beyond 64 bits.
    "can't allocate memory",
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    # numpy, for sizes that no machine has, as ValueError
    "array is too big",
    "Maximum allowed dimension exceeded",
    "Maximum allowed size exceeded",
    # C++, and CUDA's libraries
    "std::bad_alloc",
    "CUDA out of memory",
    "ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether there was not enough memory, on any device, whichever library says so; also as the cause of `error`."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):  # numpy's and numba's are MemoryErrors
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError | ValueError) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__
    return False


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
