from training.estimator.train import *
