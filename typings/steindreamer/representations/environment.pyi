from representations.environment import *
