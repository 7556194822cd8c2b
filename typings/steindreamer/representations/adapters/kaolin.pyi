from representations.adapters.kaolin import *
