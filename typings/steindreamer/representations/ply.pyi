from representations.ply import *
