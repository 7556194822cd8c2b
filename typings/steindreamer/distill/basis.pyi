from distill.basis import *
