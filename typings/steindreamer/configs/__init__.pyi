from configs import *
