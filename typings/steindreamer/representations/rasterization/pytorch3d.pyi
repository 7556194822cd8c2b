from representations.rasterization.pytorch3d import *
