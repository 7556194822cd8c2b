from training.scorer.evaluate import *
