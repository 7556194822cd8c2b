"""Any estimator by folder or hub id; its `config.json` tells which kind it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from ..tiny_estimator import load_tiny_estimator
from .sources import find_estimator
from .timm_estimator import load_timm_estimator
from .transformers_depth import ARCHITECTURES, load_transformers_depth


def load_monocular_estimator(name: str, predicts: str = "auto") -> nn.Module:
    """A frozen `GeometryEstimator` in float32 on the CPU.

    `name` as for `find_estimator`; `predicts` as for `load_transformers_depth`, of no effect on other kinds. Raises
    ValueError, OSError or ImportError, in one line, for what cannot be found or used.
    """
    folder = find_estimator(name)
    config = _read_config(folder / "config.json")
    architectures = config.get("architectures") or ()
    if any(known in architectures for known in ARCHITECTURES):
        return load_transformers_depth(folder, predicts)
    if architectures or "model_type" in config:
        what = ", ".join(map(str, architectures)) or config["model_type"]
        raise ValueError(f"{folder} holds {what}; known depth models: {', '.join(ARCHITECTURES)}")
    return load_timm_estimator(folder) if "backbone" in config else load_tiny_estimator(folder)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} must hold a JSON object, got {config!r}")
    return config
