from training.prior.card import *
