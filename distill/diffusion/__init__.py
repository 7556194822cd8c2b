"""Pretrained text-to-image diffusion models as priors, through diffusers: one adapter, one small class per family."""

from .families import FAMILIES, Family, FamilyOptions
from .memory import MemoryEstimate, estimate_memory
from .prior import DiffusersPrior, TextCondition, ViewEmbedding
from .text_rows import TextRows

__all__ = [
    "FAMILIES",
    "DiffusersPrior",
    "Family",
    "FamilyOptions",
    "MemoryEstimate",
    "TextCondition",
    "TextRows",
    "ViewEmbedding",
    "estimate_memory",
]
