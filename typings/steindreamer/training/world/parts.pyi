from training.world.parts import *
