from representations.mesh import *
