"""The options of all compiled (numba) kernels."""

from __future__ import annotations

from typing import Any

from numba import njit


def _can_cache() -> bool:
    """Whether there is a place to keep compiled code: beside the source, NUMBA_CACHE_DIR, or the user's cache folder.

    In a read-only installation of a user without a home there is none, and numba would refuse to compile at all.
    """
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


EXACT: dict[str, Any] = {"error_model": "numpy", "cache": _can_cache()}
"""IEEE arithmetic."""
FAST: dict[str, Any] = {**EXACT, "fastmath": {"contract", "reassoc", "arcp", "nsz", "afn"}}
"""Sums in any order, but NaNs and infinities keep their meaning: parameters that have diverged must not turn into wild
memory accesses."""
