from representations.gaussian_ply import *
