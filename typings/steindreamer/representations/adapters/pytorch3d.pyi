from representations.adapters.pytorch3d import *
