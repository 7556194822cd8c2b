from pipelines.journal import *
