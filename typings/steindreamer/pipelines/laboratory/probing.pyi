from pipelines.laboratory.probing import *
