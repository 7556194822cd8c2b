from representations.volume.volume_twin import *
