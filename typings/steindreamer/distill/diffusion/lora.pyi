from distill.diffusion.lora import *
