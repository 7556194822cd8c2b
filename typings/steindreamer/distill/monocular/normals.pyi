from distill.monocular.normals import *
