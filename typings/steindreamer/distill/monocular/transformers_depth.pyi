from distill.monocular.transformers_depth import *
