from distill.diffusion.model_sources import *
