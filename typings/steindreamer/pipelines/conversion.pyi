from pipelines.conversion import *
