"""Data, training and evaluation of the shipped text- and camera-conditioned diffusion prior."""
