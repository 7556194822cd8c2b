from distill.mixture import *
