"""Trainable functions of a point: multiresolution hash encoding, colour fields."""

from .colour import ColourField, ColourFieldConfig
from .hash_grid import HashGrid, HashGridConfig

__all__ = ["ColourField", "ColourFieldConfig", "HashGrid", "HashGridConfig"]
