from representations.splatting.gsplat import *
