from training.world.shapes import *
