"""The settings that make a run one that only trains the texture of a mesh file."""

from __future__ import annotations

RETEXTURED_MESH = "retextured_mesh"
"""Name of the representation."""
ONLY_TEXTURE = {"stages": {"coarse": {"steps": 0}, "geometry": {"steps": 0}, "texture": {"representation": None}}}
"""Layer over the preset: the texture stage alone."""
