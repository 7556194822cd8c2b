from distill.estimator import *
