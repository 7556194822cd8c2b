"""Floating-point operations of a network's predictions, as torch counts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(work: Callable[[], object]) -> int:
    """Count the floating-point operations of a call in matrix products, convolutions and attention; 0 without any.

    A multiplication with an addition counts as two. Compiled kernels (numba, custom CUDA code) are not counted.
    """
    with FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION) as counter:
        work()
    return counter.get_total_flops()


def _attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, out_shape: Any = None, **__: Any
) -> int:
    return sdpa_flop_count(query, key, value)


_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}
"""The attention kernel of the CPU, which torch does not count itself."""
