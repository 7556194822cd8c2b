"""Pretrained text-to-image diffusion models as priors through diffusers: one adapter, one small class per family."""

from .families import FAMILIES, Family, FamilyOptions, TextEncoder, list_families, register_family
from .memory import MemoryEstimate, estimate_memory
from .prior import DiffusersPrior, TextCondition, ViewEmbedding
from .text_embeddings import TextRows

__all__ = [
    "FAMILIES",
    "DiffusersPrior",
    "Family",
    "FamilyOptions",
    "MemoryEstimate",
    "TextCondition",
    "TextEncoder",
    "TextRows",
    "ViewEmbedding",
    "estimate_memory",
    "list_families",
    "register_family",
]
