from training.estimator.dataset import *
