from distill.torchvision_compat import *
