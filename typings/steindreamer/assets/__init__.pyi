from assets import *
