from representations.mesh_render import *
