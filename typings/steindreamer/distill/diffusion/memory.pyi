from distill.diffusion.memory import *
