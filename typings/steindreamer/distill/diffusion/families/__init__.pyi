from distill.diffusion.families import *
