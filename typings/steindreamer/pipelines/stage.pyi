from pipelines.stage import *
