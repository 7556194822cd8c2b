from distill.monocular.timm_estimator import *
