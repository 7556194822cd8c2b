from representations.mesh_file import *
