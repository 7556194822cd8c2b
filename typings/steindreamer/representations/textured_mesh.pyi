from representations.textured_mesh import *
