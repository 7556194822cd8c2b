from representations.rasterization.topology import *
