from representations.adapters import *
