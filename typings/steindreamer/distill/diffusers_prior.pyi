from distill.diffusers_prior import *
