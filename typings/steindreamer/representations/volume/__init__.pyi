from representations.volume import *
