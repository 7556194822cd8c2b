from training.world.colours import *
