from representations.mesh_formats import *
