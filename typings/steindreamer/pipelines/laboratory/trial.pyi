from pipelines.laboratory.trial import *
