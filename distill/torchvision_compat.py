"""Keeps transformers, diffusers and timm importable beside a torchvision that was built for another torch.

torchvision's wheels on PyPI are built for CUDA. Beside a CPU-only torch their compiled part cannot load, `import
torchvision` then fails at the first operator it describes, and so does every library that looks whether torchvision is
there. Declaring the operators is enough: nothing here ever calls them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path

import torch

_MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []  # a library's operators vanish with it


def prepare_torchvision() -> None:
    """Call before importing what may import torchvision; does nothing where it is absent, imported or intact."""
    if _declared or "torchvision" in sys.modules:
        return
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None or _loads(Path(found.origin).parent):
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in _MISSING:
        library.define(operator)
    _declared.append(library)


def _loads(package: Path) -> bool:
    """Whether the package's compiled operators can be loaded; torchvision will not mind finding them loaded."""
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        compiled = package / f"_C{suffix}"
        if compiled.is_file():
            try:
                torch.ops.load_library(str(compiled))
            except (ImportError, OSError):
                return False
            return True
    return False
