from representations.atomic_file import *
