from representations.rasterization import *
