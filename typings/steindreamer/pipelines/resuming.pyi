from pipelines.resuming import *
