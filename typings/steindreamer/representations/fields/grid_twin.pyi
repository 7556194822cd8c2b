from representations.fields.grid_twin import *
