"""Detection of out-of-memory errors, and advice for the user."""

from __future__ import annotations

import errno

import torch

ADVICE = (
    "out of memory; lower the resolution of the stages and of what they train, export.resolution, output.image_size "
    "or the size of the scene"
)

_SIGNS = (
    # torch on the CPU has no exception class of its own. Linux and macOS, Windows, sizes beyond 64 bits.
    "can't allocate memory",
    "DefaultCPUAllocator",
    "Storage size calculation overflowed",
    "numel: integer multiplication overflow",
    # numpy raises ValueError for sizes beyond any machine
    "array is too big",
    "Maximum allowed dimension exceeded",
    "Maximum allowed size exceeded",
    # C++ and CUDA libraries
    "std::bad_alloc",
    "CUDA out of memory",
    "ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or its cause, is an out-of-memory error on any device, raised by any library."""
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):  # numpy and numba raise MemoryError
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, RuntimeError | ValueError) and any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__
    return False
