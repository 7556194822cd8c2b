from distill.diffusion.micro_batches import *
