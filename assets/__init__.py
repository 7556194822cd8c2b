"""Shipped weights (safetensors), each folder with a model card."""
