"""Storage of this package's geometry estimators in a folder: `config.json` and safetensors in half precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..files.digests import check_contents
from ..files.json_files import parse_json_object, read_file, settings_from_json
from ..files.weights import fill, in_half_precision

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class EstimatorConfig:
    """Base class of the estimator configs: plain values and tuples of them."""

    def to_json(self) -> str:
        """The contents of `config.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"


Config = TypeVar("Config", bound=EstimatorConfig)
Model = TypeVar("Model", bound=nn.Module)


def load_saved(folder: Traversable, config: type[Config], build: Callable[[Config], Model]) -> Model:
    """Load an estimator saved in a folder, in float32, frozen, in evaluation mode.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    contents = {name: read_file(folder.joinpath(name)) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    check_contents(folder, contents)
    given = parse_json_object(contents[CONFIG_FILE], f"{folder}/{CONFIG_FILE}")
    model = build(settings_from_json(config, given))
    fill(model, contents[WEIGHTS_FILE], Path(str(folder)) / WEIGHTS_FILE, "geometry estimator")
    # The channels-last memory format is a quarter faster on the CPU.
    return model.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # pyright: ignore[reportCallIssue]


def save_half(folder: Path, config: EstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    (folder / WEIGHTS_FILE).write_bytes(in_half_precision(state))
