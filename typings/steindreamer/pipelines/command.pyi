from pipelines.command import *
