from distill.estimator_files import *
