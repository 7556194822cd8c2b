from representations.volume._cpu_volume import *
