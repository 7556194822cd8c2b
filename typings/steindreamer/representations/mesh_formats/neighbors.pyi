from representations.mesh_formats.neighbors import *
