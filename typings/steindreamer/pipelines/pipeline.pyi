from pipelines.pipeline import *
