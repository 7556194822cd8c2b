from distill.diffusion.families.flux import *
