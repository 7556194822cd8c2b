from training.scorer.dataset import *
