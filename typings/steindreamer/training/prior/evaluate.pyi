from training.prior.evaluate import *
