from distill.diffusion.text_rows import *
