from pipelines.schema import *
