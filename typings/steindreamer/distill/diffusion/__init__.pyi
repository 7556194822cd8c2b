from distill.diffusion import *
