"""Batches: many prompts, one run folder for each, in this process or on the workers of a Ray cluster."""
