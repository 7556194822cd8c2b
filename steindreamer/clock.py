"""Seconds of work on a device."""

from __future__ import annotations

import time

import torch


def seconds_now(device: torch.device) -> float:
    """Seconds by a monotonic clock, once a CUDA device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
