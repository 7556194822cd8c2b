from distill.diffusion.samplers import *
