from distill.diffusion.layouts import *
