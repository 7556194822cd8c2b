"""Compiled kernels run wherever the package is installed, with or without a place for their cache."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

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


HASH_OF_PICTURES_AND_GRADIENTS = """
import hashlib, torch
from steindreamer.representations import REPRESENTATIONS, Cameras
digest = hashlib.sha256()
for name in ("gaussians", "nerf", "mesh"):
    scene = REPRESENTATIONS[name]().build(torch.Generator().manual_seed(0))
    output = scene.render(Cameras.orbit([0.0, 120.0], [0.0, 30.0], height=48), torch.ones(2, 3))
    pictures = (output.rgb, output.opacity, output.depth, output.normal)
    sum((picture * torch.rand(picture.shape)).sum() for picture in pictures).backward()
    gradients = [p.grad for p in scene.parameters() if p.grad is not None]
    for tensor in (*pictures, *gradients):
        digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_compiling_and_loading_give_the_same_bits(tmp_path: Path) -> None:
    """The first run after an installation compiles; what resumes it loads."""
    script = "import torch; torch.manual_seed(0)" + HASH_OF_PICTURES_AND_GRADIENTS
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc")), "nothing was cached"
    assert compiled.stdout == loaded.stdout
