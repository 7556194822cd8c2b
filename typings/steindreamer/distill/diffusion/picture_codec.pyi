from distill.diffusion.picture_codec import *
