from pipelines.priors import *
