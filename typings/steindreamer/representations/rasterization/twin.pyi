from representations.rasterization.twin import *
