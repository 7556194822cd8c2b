from distill.diffusion.tokenizer import *
