"""Compiled kernels run with and without a writable cache folder."""

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
    """A read-only installation of a user without a home folder."""
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    try:
        assert importlib.reload(jit).FAST["cache"] is False
    finally:
        monkeypatch.undo()
        importlib.reload(jit)


HASH_OF_IMAGES_AND_GRADIENTS = """
import hashlib, torch
from steindreamer.representations import REPRESENTATIONS, Cameras
digest = hashlib.sha256()
scene = REPRESENTATIONS["gaussians"](count=500).build(torch.Generator().manual_seed(0))
output = scene.render(Cameras.orbit([0.0, 120.0], [0.0, 30.0], height=24), torch.ones(2, 3))
images = (output.rgb, output.opacity, output.depth, output.normal)
sum((image * torch.rand(image.shape)).sum() for image in images).backward()
gradients = [p.grad for p in scene.parameters() if p.grad is not None]
for tensor in (*images, *gradients):
    digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_compiling_and_loading_give_the_same_bits(tmp_path: Path) -> None:
    """The first process compiles the kernels, the second loads them from the cache."""
    script = "import torch; torch.manual_seed(0)" + HASH_OF_IMAGES_AND_GRADIENTS
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    compiled, loaded = (
        subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert list(tmp_path.rglob("*.nbc")), "nothing was cached"
    assert compiled.stdout == loaded.stdout
