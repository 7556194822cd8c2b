from representations.rasterization.cpu import *
