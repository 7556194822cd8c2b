from distill.perp_neg import *
