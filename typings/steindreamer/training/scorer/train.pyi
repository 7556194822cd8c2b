from training.scorer.train import *
