from pipelines.export.stopwatch import *
