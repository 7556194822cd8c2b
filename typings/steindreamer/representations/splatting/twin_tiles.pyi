from representations.splatting.twin_tiles import *
