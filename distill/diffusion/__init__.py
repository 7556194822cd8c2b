"""Pretrained text-to-image diffusion models as priors, through diffusers: one adapter, one small class per family."""

from .families import FAMILIES, Family, FamilyOptions
from .prior import DiffusersPrior, TextCondition, ViewEmbedding
from .text_rows import TextRows

__all__ = [
    "FAMILIES",
    "DiffusersPrior",
    "Family",
    "FamilyOptions",
    "TextCondition",
    "TextRows",
    "ViewEmbedding",
]
