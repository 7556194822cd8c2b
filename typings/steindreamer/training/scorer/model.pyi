from training.scorer.model import *
