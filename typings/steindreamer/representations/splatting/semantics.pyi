from representations.splatting.semantics import *
