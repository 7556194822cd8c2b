from training.estimator import *
