from distill.diffusion.prior import *
