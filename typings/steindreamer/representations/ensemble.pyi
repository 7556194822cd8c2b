from representations.ensemble import *
