"""Readers of asset files as they are written: accessors, names, materials and images, without repair."""
