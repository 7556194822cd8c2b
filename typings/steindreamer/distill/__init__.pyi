from distill import *
