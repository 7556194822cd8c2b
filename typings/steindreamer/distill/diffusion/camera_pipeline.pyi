from distill.diffusion.camera_pipeline import *
