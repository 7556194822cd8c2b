from distill.digests import *
