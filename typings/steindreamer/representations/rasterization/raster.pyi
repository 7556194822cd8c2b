from representations.rasterization.raster import *
