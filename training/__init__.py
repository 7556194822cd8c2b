"""Training of the shipped weights: data from the captioned procedural world, and the training scripts."""
