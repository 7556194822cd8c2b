from distill.tiny_estimator import *
