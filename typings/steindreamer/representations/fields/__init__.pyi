from representations.fields import *
