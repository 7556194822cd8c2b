"""The families of text-to-image models. A new one is a subclass of `Family`, registered by `register_family`."""

from typing import Any

from steindreamer.registry import Registry

from ...modalities import MODALITIES
from .base import Family, FamilyOptions, TextEncoder
from .camera_conditioned import CameraConditioned
from .deepfloyd_if import DeepFloydIF
from .flux import Flux
from .pixart import PixArtAlpha, PixArtSigma
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL


def _family(name: str, given: Any) -> type[Family]:
    if not (isinstance(given, type) and issubclass(given, Family)):
        raise ValueError(f"family {name!r} must be a subclass of Family, got {given!r}")
    if not given.modalities or not set(given.modalities) <= set(MODALITIES):
        raise ValueError(
            f"family {name!r} has modalities={given.modalities!r}; a tuple of {', '.join(MODALITIES)} is accepted"
        )
    return given


FAMILIES: Registry[type[Family]] = Registry(
    "family",
    {
        "StableDiffusionPipeline": StableDiffusion,
        "StableDiffusionXLPipeline": StableDiffusionXL,
        "StableDiffusion3Pipeline": StableDiffusion3,
        "FluxPipeline": Flux,
        "PixArtAlphaPipeline": PixArtAlpha,
        "PixArtSigmaPipeline": PixArtSigma,
        "IFPipeline": DeepFloydIF,
        "CameraConditionedPipeline": CameraConditioned,
    },
    _family,
)
"""Families by pipeline name, which is the `_class_name` of a model's model_index.json: diffusers' pipelines, and this
package's as the last one."""

register_family = FAMILIES.register
list_families = FAMILIES.names

__all__ = ["FAMILIES", "Family", "FamilyOptions", "StableDiffusion", "TextEncoder", "list_families", "register_family"]
