from training.prior import *
