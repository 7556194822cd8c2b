"""Compiler options of all numba kernels."""

from __future__ import annotations

from typing import Any

from numba import njit


def _can_cache() -> bool:
    """Whether numba has a writable cache folder: beside the source, NUMBA_CACHE_DIR, or the user's cache folder.

    A read-only installation of a user without a home folder has none, and numba would raise with `cache=True`.
    """
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


EXACT: dict[str, Any] = {"error_model": "numpy", "cache": _can_cache()}
"""Options for IEEE arithmetic."""
FAST: dict[str, Any] = {**EXACT, "fastmath": {"arcp", "nsz", "afn"}}
"""Options for approximate single operations. Reordered sums (`reassoc`) and fused products (`contract`) stay off: their
result depends on the surrounding code, so a process that compiles a kernel could get other bits than one that loads it
from the cache, and a resumed run could differ from an uninterrupted one. NaN and infinity keep their meaning, so that
diverged parameters cannot cause out-of-bounds memory accesses."""
