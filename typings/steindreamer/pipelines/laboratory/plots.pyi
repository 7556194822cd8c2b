from pipelines.laboratory.plots import *
