"""Trainable functions of a point: feature grids, colour fields, radiance fields."""

from .blob import Blob, BlobConfig
from .colour import ColourField, ColourFieldConfig
from .hash_grid import DenseGrid, DenseGridConfig, FeatureGrid, HashGrid, HashGridConfig
from .radiance import Radiance, RadianceField, RadianceFieldConfig

__all__ = [
    "Blob",
    "BlobConfig",
    "ColourField",
    "ColourFieldConfig",
    "DenseGrid",
    "DenseGridConfig",
    "FeatureGrid",
    "HashGrid",
    "HashGridConfig",
    "Radiance",
    "RadianceField",
    "RadianceFieldConfig",
]
