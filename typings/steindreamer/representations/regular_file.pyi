from representations.regular_file import *
