from representations.gaussians import *
