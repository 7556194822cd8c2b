from training.world import *
