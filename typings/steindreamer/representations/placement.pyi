from representations.placement import *
