from training.scorer import *
