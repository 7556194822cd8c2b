from distill.schedule import *
