from representations.mesh_penalties import *
