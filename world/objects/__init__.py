"""Builders of the world's objects, one file per theme; `kinds.KINDS` is their register."""
