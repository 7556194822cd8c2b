from distill.model_sources import *
