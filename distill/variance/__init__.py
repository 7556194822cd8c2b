"""Measurement of gradient variance."""
