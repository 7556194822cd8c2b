"""Compiled kernels run wherever the package is installed, with or without a place for their cache."""

import importlib

import numba.core.caching
import pytest

from steindreamer.representations import jit


def test_kernels_are_cached() -> None:
    assert jit.EXACT["cache"] is True and jit.FAST["cache"] is True


def test_without_a_writable_folder_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a read-only installation of a user without a home."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    try:
        assert importlib.reload(jit).FAST["cache"] is False
    finally:
        monkeypatch.undo()
        importlib.reload(jit)
