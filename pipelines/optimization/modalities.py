"""Images of a stage's steps: the modality that a step distills, the image that the prior gets, and what it knows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import Prior
from steindreamer.distill.priors.modalities import (
    encode,
    encode_normal_as_color,
    known_modalities,
    knows_parts_of_images,
)
from steindreamer.representations import Cameras, RenderOutput

from ..errors import SettingsError
from .stage_config import StageConfig


def draw_modality(fractions: Mapping[str, float], generator: torch.Generator) -> str:
    """The modality of a step, drawn by `StageConfig.fractions`; a single one takes no random number."""
    *others, last = fractions
    drawn = float(torch.rand((), generator=generator, dtype=torch.float64)) if others else 0.0
    for modality in others:
        drawn -= fractions[modality]
        if drawn < 0:
            return modality
    return last


def conditioned_as(modality: str, config: StageConfig) -> str:
    """The modality that the prior is conditioned on for images of a stage's modality."""
    return "color" if modality == "normal" and config.normals_as_color else modality


def modality_image(
    modality: str, output: RenderOutput, cameras: Cameras, config: StageConfig
) -> Float[Tensor, "b 3 h w"]:
    """The image of a stage's modality in [0, 1], from the rendered buffers. Differentiable.

    Color and albedo are both the scene's own colors here, over their background; light is added to `output.rgb` before.
    """
    if conditioned_as(modality, config) != modality:
        return encode_normal_as_color(output.normal, output.opacity)
    return encode(
        modality,
        rgb=output.rgb,
        albedo=output.rgb,
        normal=output.normal,
        depth=output.depth,
        opacity=output.opacity,
        cameras=cameras,
    )


def check_modalities(stage: str, config: StageConfig, prior: Prior) -> None:
    """Check that the prior knows what a stage distills. Raises SettingsError, which names the setting."""
    known, name = known_modalities(prior), type(prior).__name__
    knows = f"{name} supports {', '.join(known)}"
    for modality in config.fractions:
        if conditioned_as(modality, config) in known:
            continue
        if conditioned_as(modality, config) != modality:
            raise SettingsError(
                f"stages.{stage}.normals_as_color gives the prior normal maps as color images, but {knows}; set "
                f"stages.{stage}.normals_as_color=false"
            )
        advice = f"choose one of these (stages.{stage}.modalities={{{known[0]}: 1, {modality}: 0}})"
        if modality == "normal" and "color" in known:
            advice += f", or give it normal maps as color images (stages.{stage}.normals_as_color=true)"
        advice += "; --prior world supports all"
        raise SettingsError(f"stages.{stage}.modalities asks for '{modality}', but {knows}: {advice}")


def check_crops(stage: str, config: StageConfig, prior: Prior) -> None:
    """Check that the prior knows parts of images if a stage shows them. Raises SettingsError, naming the setting."""
    if config.views.crop_fraction and not knows_parts_of_images(prior):
        raise SettingsError(
            f"stages.{stage}.views.crop_fraction={config.views.crop_fraction:g} shows parts of images, but "
            f"{type(prior).__name__} only knows whole ones: set it to 0; --prior world knows both"
        )
