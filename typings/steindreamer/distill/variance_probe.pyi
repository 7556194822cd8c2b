from distill.variance_probe import *
