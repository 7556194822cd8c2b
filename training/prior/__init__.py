"""How the shipped text- and camera-conditioned diffusion prior is made: its data, its training and its evaluation."""
