from pipelines.laboratory import *
