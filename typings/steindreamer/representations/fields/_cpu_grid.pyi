from representations.fields._cpu_grid import *
