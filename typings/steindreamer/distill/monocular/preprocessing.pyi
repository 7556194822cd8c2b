from distill.monocular.preprocessing import *
