from representations.dmtet.conversion import *
