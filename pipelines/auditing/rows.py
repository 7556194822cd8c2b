"""Distinct rows of integer arrays; `np.unique(axis=0)` takes several times as long."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int


def distinct_rows(rows: Int[np.ndarray, "n c"]) -> tuple[Int[np.ndarray, " d"], Int[np.ndarray, " n"]]:
    """Index of the first occurrence of every distinct row, and the distinct row of each row."""
    order = np.lexsort(rows.T)  # stable: equal rows keep their order
    in_order = rows[order]
    fresh = np.ones(len(rows), bool)
    fresh[1:] = (in_order[1:] != in_order[:-1]).any(1)
    inverse = np.empty(len(rows), np.int64)
    inverse[order] = np.cumsum(fresh) - 1
    return order[fresh], inverse
