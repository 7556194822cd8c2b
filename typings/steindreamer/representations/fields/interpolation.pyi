from representations.fields.interpolation import *
