from training.prior.sample import *
