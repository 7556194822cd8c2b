from training.world.sampling import *
