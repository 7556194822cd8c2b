from representations.fields.hash_grid import *
