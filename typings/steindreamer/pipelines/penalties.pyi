from pipelines.penalties import *
