from representations.dmtet_mesh import *
