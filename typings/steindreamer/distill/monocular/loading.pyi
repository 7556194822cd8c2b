from distill.monocular.loading import *
