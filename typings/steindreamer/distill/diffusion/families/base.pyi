from distill.diffusion.families.base import *
