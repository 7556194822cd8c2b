from pipelines.sections import *
