from representations.painted_mesh import *
