"""2D diffusion priors: the protocol, guidance, and the priors themselves."""
