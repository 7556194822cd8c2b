"""Text-to-image models of full size without weights: folders of configurations, loaded on the device "meta"."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from steindreamer.distill.priors.diffusion import FAMILIES, DiffusersPrior, TextRows, ViewEmbedding
from steindreamer.distill.priors.diffusion.families.base import FlowFamily

from .published import TextToImage

VIEW_PROMPTS = 4
WEIGHTS = {"text": "model.safetensors", "part": "diffusion_pytorch_model.safetensors"}
"""Empty files of these names: the product wants to see that weights are there."""


def weightless_prior(model: TextToImage, folder: Path, **settings: Any) -> DiffusersPrior:
    """The product's own prior on the device "meta"; its configurations are written to `folder`."""
    _write(model, folder)
    with patch("steindreamer.distill.priors.diffusion.prior.load_part", _without_weights):
        prior = DiffusersPrior(str(folder), torch.device("meta"), **settings)
        prior.denoiser  # noqa: B018 - loaded when it is first asked for
    return prior


def embedding(model: TextToImage) -> ViewEmbedding:
    """What the text encoders would answer, without values."""

    def rows(count: int) -> TextRows:
        kinds = {name: torch.bool if name.endswith("mask") else torch.float32 for name in model.inputs}
        return TextRows(
            {name: torch.empty(count, *shape, dtype=kinds[name], device="meta") for name, shape in model.inputs.items()}
        )

    return ViewEmbedding(rows(VIEW_PROMPTS), rows(1))


def _write(model: TextToImage, folder: Path) -> None:
    family = FAMILIES[model.pipeline]
    parts = {family.denoiser: (model.denoiser, "part"), "vae": (model.vae, "part")}
    parts |= {part: (config, "text") for part, config in zip(family.text_encoders, model.texts, strict=True)}
    for part, (config, kind) in parts.items():
        _put(folder / part / "config.json", config)
        (folder / part / WEIGHTS[kind]).touch()
    for encoder in family.text_encoders.values():
        _put(folder / encoder.tokenizer_folder / "tokenizer.json", {})
    sampler = "FlowMatchEulerDiscreteScheduler" if issubclass(family, FlowFamily) else "DDPMScheduler"
    _put(folder / "scheduler" / "scheduler_config.json", {"_class_name": sampler})
    _put(folder / "model_index.json", {"_class_name": model.pipeline})


def _put(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _without_weights(model: Any, files: Any, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """In place of `load_part`."""
    with torch.device("meta"):
        made = model.from_config(model.load_config(files.folder / part))
    # diffusers' own `to` warns of parts to be kept in float32, even where there are none.
    return nn.Module.to(made, dtype).eval().requires_grad_(False)
