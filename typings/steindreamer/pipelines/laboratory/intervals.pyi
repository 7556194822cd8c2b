from pipelines.laboratory.intervals import *
