from training.prior.model import *
