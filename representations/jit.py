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
FAST: dict[str, Any] = {**EXACT, "fastmath": {"arcp", "nsz", "afn"}}
"""Approximate operations, each on its own: sums in other orders (`reassoc`) or fused products (`contract`) would
depend on what the compiler sees around them, and a process that compiles a kernel would get other bits than one that
loads it from the cache; a resumed run would not end like one left alone. NaNs and infinities keep their meaning:
parameters that have diverged must not turn into wild memory accesses."""
