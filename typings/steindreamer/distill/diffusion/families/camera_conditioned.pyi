from distill.diffusion.families.camera_conditioned import *
