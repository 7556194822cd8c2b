from distill.diffusion.text_encoding import *
