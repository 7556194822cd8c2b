from representations.splatting import *
