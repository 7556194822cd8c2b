from training.world.truth import *
