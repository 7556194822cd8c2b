from pipelines.checkpoint import *
