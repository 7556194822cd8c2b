from distill.diffusion.text_cache import *
