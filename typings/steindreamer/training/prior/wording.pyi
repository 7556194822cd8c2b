from training.prior.wording import *
