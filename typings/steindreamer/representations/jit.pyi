from representations.jit import *
