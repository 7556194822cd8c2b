from distill.residuals import *
