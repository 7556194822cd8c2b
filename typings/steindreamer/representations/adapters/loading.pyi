from representations.adapters.loading import *
