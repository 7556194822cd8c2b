"""Workarounds for the behavior of other libraries at import and load time."""
