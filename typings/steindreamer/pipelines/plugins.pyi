from pipelines.plugins import *
