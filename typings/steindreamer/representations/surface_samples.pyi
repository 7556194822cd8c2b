from representations.surface_samples import *
