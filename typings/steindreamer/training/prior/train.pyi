from training.prior.train import *
