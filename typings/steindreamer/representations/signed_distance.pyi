from representations.signed_distance import *
