from training.estimator.evaluate import *
