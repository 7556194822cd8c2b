from training.prior.dataset import *
