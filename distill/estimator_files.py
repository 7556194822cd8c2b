"""How this product's geometry estimators are kept in a folder: `config.json` and safetensors in half precision."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class EstimatorConfig:
    """Base of the configs: plain values and tuples of them."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


Config = TypeVar("Config", bound=EstimatorConfig)
Model = TypeVar("Model", bound=nn.Module)


def load_saved(folder: Traversable, config: type[Config], build: Callable[[Config], Model]) -> Model:
    """The estimator saved in a folder, in float32, frozen, in evaluation mode.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    try:
        model = build(_config_from_json(config, folder.joinpath(CONFIG_FILE).read_bytes()))
        tensors = load(folder.joinpath(WEIGHTS_FILE).read_bytes())
        model.load_state_dict({name: _cast(value, torch.float32) for name, value in tensors.items()})
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(f"not a geometry estimator: {error}") from error
    # Channels last: a quarter faster on the CPU.
    return model.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # pyright: ignore[reportCallIssue]


def save_half(folder: Path, config: EstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision; running statistics, whose range is the data's, stay."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    weights = {name: value if "running_" in name else _cast(value, torch.float16) for name, value in state.items()}
    (folder / WEIGHTS_FILE).write_bytes(save({name: value.contiguous() for name, value in weights.items()}))


def _cast(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _config_from_json(kind: type[Config], text: str | bytes) -> Config:
    """Raises ValueError for anything but a JSON object with exactly the dataclass's fields."""
    given, names = json.loads(text), [field.name for field in fields(kind)]
    if not isinstance(given, dict) or given.keys() != set(names):
        raise ValueError(f"expected a JSON object with the keys {', '.join(names)}, got {given}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
