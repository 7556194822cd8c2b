from distill.monocular import *
