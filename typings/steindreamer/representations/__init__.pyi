from representations import *
