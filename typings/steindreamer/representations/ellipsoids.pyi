from representations.ellipsoids import *
