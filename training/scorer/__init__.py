"""A small judge of pictures and captions of the world, independent of every prior: its network and its training."""
