from representations.dmtet import *
