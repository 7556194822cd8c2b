from distill.monocular.sources import *
