"""Trainable fields, that is, functions of position: feature grids, color fields and radiance fields."""

from .blob import Blob, BlobConfig
from .color import ColorField, ColorFieldConfig
from .hash_grid import DenseGrid, DenseGridConfig, FeatureGrid, HashGrid, HashGridConfig
from .radiance import Radiance, RadianceField, RadianceFieldConfig

__all__ = [
    "Blob",
    "BlobConfig",
    "ColorField",
    "ColorFieldConfig",
    "DenseGrid",
    "DenseGridConfig",
    "FeatureGrid",
    "HashGrid",
    "HashGridConfig",
    "Radiance",
    "RadianceField",
    "RadianceFieldConfig",
]
