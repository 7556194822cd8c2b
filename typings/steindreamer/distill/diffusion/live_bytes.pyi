from distill.diffusion.live_bytes import *
