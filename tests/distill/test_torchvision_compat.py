"""In processes of their own: an operator cannot be declared twice, nor an import undone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

DISTILL = Path(__file__).parents[2] / "distill"

# What a torchvision built for another torch does: its compiled part does not load, its operators are described anyway.
BROKEN = """
import torch
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""


def _run(code: str, folder: Path) -> list[str]:
    """What a fresh interpreter prints; packages in `folder` come first."""
    # The module alone, without the package around it: half the time.
    start = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(DISTILL)!r}]\n"
    start += "from torchvision_compat import prepare_torchvision as prepare\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def _package(folder: Path, *, compiled: bytes, source: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "_C.so").write_bytes(compiled)


def test_a_torchvision_that_cannot_load_is_made_importable(tmp_path: Path) -> None:
    _package(tmp_path, compiled=b"built for another torch", source=BROKEN)
    code = """
try:
    import torchvision
except RuntimeError as error:
    print(error)
prepare()
prepare()
import torchvision
print(torchvision.__name__)
"""
    before, after = _run(code, tmp_path)
    assert "torchvision::nms does not exist" in before
    assert after == "torchvision"


def test_nothing_is_declared_where_nothing_is_wrong(tmp_path: Path) -> None:
    _package(tmp_path, compiled=b"", source="")
    code = """
import importlib.util, torch
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None
prepare()
print("absent", hasattr(torch.ops.torchvision, "nms"))
importlib.util.find_spec = find
import torchvision
prepare()
print("imported", hasattr(torch.ops.torchvision, "nms"))
"""
    assert _run(code, tmp_path) == ["absent False", "imported False"]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
def test_the_installed_torchvision_can_be_imported(tmp_path: Path) -> None:
    assert _run("prepare()\nimport torchvision.transforms.v2\nprint('imported')", tmp_path) == ["imported"]
