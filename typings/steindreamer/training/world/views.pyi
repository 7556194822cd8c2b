from training.world.views import *
