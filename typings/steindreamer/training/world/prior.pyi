from training.world.prior import *
