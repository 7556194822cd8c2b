from representations.nerf import *
