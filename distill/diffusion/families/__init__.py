"""The families of text-to-image models. To add one: a subclass of `Family` in a file, and an entry here."""

from .base import Family, FamilyOptions, TextEncoder
from .camera_conditioned import CameraConditioned
from .deepfloyd_if import DeepFloydIF
from .flux import Flux
from .pixart import PixArtAlpha, PixArtSigma
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL

FAMILIES: dict[str, type[Family]] = {
    "StableDiffusionPipeline": StableDiffusion,
    "StableDiffusionXLPipeline": StableDiffusionXL,
    "StableDiffusion3Pipeline": StableDiffusion3,
    "FluxPipeline": Flux,
    "PixArtAlphaPipeline": PixArtAlpha,
    "PixArtSigmaPipeline": PixArtSigma,
    "IFPipeline": DeepFloydIF,
    "CameraConditionedPipeline": CameraConditioned,
}
"""Family by the name of the pipeline (diffusers', the last one of this package), which is the `_class_name` of a
model's model_index.json."""

__all__ = ["FAMILIES", "Family", "FamilyOptions", "TextEncoder"]
