"""How the shipped weights were made: the captioned procedural world and the training scripts."""
