from distill.weight_files import *
