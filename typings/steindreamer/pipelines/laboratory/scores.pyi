from pipelines.laboratory.scores import *
