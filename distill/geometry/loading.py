"""Loading of any geometry estimator by folder or hub id; its `config.json` determines the kind."""

from __future__ import annotations

from torch import nn

from ..files.json_files import read_json_object
from .sources import find_estimator
from .timm_estimator import load_timm_estimator
from .tiny_estimator import load_tiny_estimator
from .transformers_depth import ARCHITECTURES, load_transformers_depth


def load_monocular_estimator(name: str, predicts: str = "auto") -> nn.Module:
    """Load a frozen `GeometryEstimator` in float32 on the CPU.

    Args:
        name: see `find_estimator`.
        predicts: see `load_transformers_depth`; has no effect on other kinds.

    Raises ValueError, OSError or ImportError, in one line, for files that cannot be found or used.
    """
    folder = find_estimator(name)
    config = read_json_object(folder / "config.json")
    listed = config.get("architectures")
    architectures = listed if isinstance(listed, list) else [listed] if listed else []
    if any(known in architectures for known in ARCHITECTURES):
        return load_transformers_depth(folder, predicts)
    if architectures or "model_type" in config:
        what = ", ".join(map(str, architectures)) or str(config["model_type"])
        raise ValueError(f"{folder} holds {what}; known depth models: {', '.join(ARCHITECTURES)}")
    return load_timm_estimator(folder) if "backbone" in config else load_tiny_estimator(folder)
