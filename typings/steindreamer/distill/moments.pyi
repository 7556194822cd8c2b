from distill.moments import *
