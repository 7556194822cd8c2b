from pipelines.laboratory.results import *
