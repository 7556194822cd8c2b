"""Monocular depth and normal estimators."""
