"""The families of text-to-image models. To add one: a subclass of `Family` in a file, and an entry here."""

from .base import Family, FamilyOptions, TextEncoder
from .stable_diffusion import StableDiffusion

FAMILIES: dict[str, type[Family]] = {
    "StableDiffusionPipeline": StableDiffusion,
}
"""Family by the name of diffusers' pipeline, the `_class_name` of a model's model_index.json."""

__all__ = ["FAMILIES", "Family", "FamilyOptions", "TextEncoder"]
