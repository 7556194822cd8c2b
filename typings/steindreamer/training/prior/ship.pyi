from training.prior.ship import *
