from representations.densify import *
