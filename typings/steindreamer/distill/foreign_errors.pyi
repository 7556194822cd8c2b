from distill.foreign_errors import *
